package agent

import (
	"context"

	"github.com/sixpn/sixpn/dns"
	"github.com/sixpn/sixpn/netns"
)

// resolver is where DNS listens inside the private namespace: the router lets no
// address but the resolver's reach it.
const resolver = "[::]:53"

// openNames makes the resolver. Its sockets for the rest of the world are the
// agent's own: tenants have no part in them.
func (a *agent) openNames(context.Context) error {
	c := dns.Config{
		Snapshot:  a.store.Snapshot,
		Distances: a.trips.Distances,
		Forward:   dns.Forward{Upstreams: a.config.Upstreams},
		Observer:  a.metrics.Names(),
		Log:       a.log,
	}
	a.names = dns.NewServer(c)
	c.Snapshot = a.whole.Snapshot
	a.allNames = dns.NewServer(c)
	return nil
}

// serveNames opens the host port and answers DNS behind it.
func (a *agent) serveNames(ctx context.Context) error {
	packets, err := a.private.ListenPacket(ctx, "udp6", resolver, netns.FreeBind)
	if err != nil {
		return err
	}
	defer packets.Close()
	listener, err := a.private.Listen(ctx, "tcp6", resolver, netns.FreeBind)
	if err != nil {
		return err
	}
	defer listener.Close()
	// First the sockets: what the port lets in finds an answer.
	if err := a.raiseHostPort(ctx); err != nil {
		return err
	}
	close(a.hostUp)
	return a.names.Run(ctx, packets, listener)
}
