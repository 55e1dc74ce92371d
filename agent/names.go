package agent

import (
	"context"
	"fmt"
	"net"

	"github.com/sixpn/sixpn/dns"
	"github.com/sixpn/sixpn/netns"
)

// resolver is where DNS listens inside the private namespace: the router lets no
// address but the resolver's reach it.
const resolver = "[::]:53"

// serveNames opens the host port and answers DNS behind it.
func (a *agent) serveNames(ctx context.Context) error {
	packets, err := a.private.ListenPacket(ctx, "udp6", resolver, netns.FreeBind)
	if err != nil {
		return err
	}
	defer packets.Close()
	udp, ok := packets.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("the resolver's socket is a %T, expected UDP", packets)
	}
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
	return dns.NewServer(dns.Config{Packet: udp, Listener: listener, Snapshot: a.store.Snapshot, Log: a.log}).Run(ctx)
}
