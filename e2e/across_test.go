package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/netns"
)

// TestAcrossHostsAndNetworks has a client of one org use a service of another org on
// another host: by its Flycast address and by nothing else, also while both agents are
// away, and not a moment longer than the address exists.
func TestAcrossHostsAndNetworks(t *testing.T) {
	const port = 80
	ctx := nettest.Context(t)
	fleet := nettest.StartFleet(ctx, t, nettest.FleetConfig{Regions: []string{"iad", "fra"}})
	near, far := fleet.Hosts[0], fleet.Hosts[1]
	for _, org := range []string{"acme", "client"} {
		nettest.Must(t, near.CreateOrg(ctx, org))
	}
	nettest.Must(t, near.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, near.CreateApp(ctx, "visitor", "client"))
	server := nettest.Get[*nettest.Machine](t)(far.Run(ctx, "web", nettest.Options{Services: []string{"80:8080/tcp"}}, far.Payload("serve", "-tcp", "8080,8081")...))
	visitor := nettest.Get[*nettest.Machine](t)(near.Run(ctx, "visitor", nettest.Options{}, near.Payload("idle")...))
	vip := netip.AddrPortFrom(nettest.Get[netip.Addr](t)(near.AllocateVIP(ctx, "web", "client")), port)
	nettest.Must(t, far.Settle(ctx))

	reaches := func(from *nettest.Machine, to netip.AddrPort) error {
		got, err := nettest.Probe[payload.Connections](ctx, from, "connect", "-timeout", "1s", to.String())
		if err == nil && got.OK != 1 {
			err = fmt.Errorf("no connection to %s: %v", to, got.Errors)
		}
		return err
	}
	nettest.Must(t, nettest.Eventually(ctx, "the visitor reaches the service", func(context.Context) error { return reaches(visitor, vip) }))

	for name, refused := range map[string]func() error{
		"the server itself":               func() error { return reaches(visitor, netip.AddrPortFrom(server.Addr, 8080)) },
		"another port of the server":      func() error { return reaches(visitor, netip.AddrPortFrom(server.Addr, 8081)) },
		"the visitor, of the server":      func() error { return reaches(server, netip.AddrPortFrom(visitor.Addr, 22)) },
		"another port of the address":     func() error { return reaches(visitor, netip.AddrPortFrom(vip.Addr(), 8080)) },
		"the address, in another network": func() error { return reaches(server, vip) },
	} {
		if refused() == nil {
			t.Errorf("%s is reached", name)
		}
	}

	inside := nettest.Get[*netns.Namespace](t)(visitor.Namespace())
	defer inside.Close()
	for _, h := range fleet.Hosts {
		nettest.Must(t, h.KillAgent())
	}
	held := nettest.Get[net.Conn](t)(inside.Dial(ctx, "tcp6", nil, vip.String()))
	defer held.Close()
	greeted(t, held)
	started, visits := make(chan struct{}), make(chan int)
	go func() {
		count := 0
		defer func() { visits <- count }()
		for ; ; count++ {
			select {
			case <-started:
				return
			default:
			}
			conn, err := inside.Dial(ctx, "tcp6", nil, vip.String())
			if err != nil {
				t.Errorf("connection %d while the agents start: %v", count, err)
				return
			}
			_ = conn.Close()
		}
	}()
	for _, h := range fleet.Hosts {
		nettest.Must(t, h.StartAgent(ctx))
	}
	for _, h := range fleet.Hosts {
		nettest.Must(t, h.Settle(ctx))
	}
	close(started)
	if count := <-visits; count == 0 {
		t.Error("nobody came while the agents started")
	}
	nettest.Must(t, held.SetDeadline(time.Time{})) // that of the greeting
	_, err := held.Write([]byte("still here\n"))
	nettest.Must(t, err)
	greeted(t, held)

	answer, err := near.Client.DeleteIPAssignmentWithResponse(ctx, "web", vip.Addr().String(), &api.DeleteIPAssignmentParams{Wait: api.WaitForApplied})
	nettest.Must(t, api.Check(answer, err))
	nettest.Must(t, far.Settle(ctx))
	if reaches(visitor, vip) == nil {
		t.Error("the service is reached by an address that does not exist any more")
	}
	if n := nettest.Get[uint64](t)(far.Drops(ctx, "wall")) + nettest.Get[uint64](t)(near.Drops(ctx, "wall")); n != 0 {
		t.Errorf("only the final check stopped %d packets", n)
	}
}

// greeted waits for the server's first words.
func greeted(t *testing.T, conn net.Conn) {
	t.Helper()
	nettest.Must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	if _, err := conn.Read(make([]byte, 64)); err != nil {
		t.Fatalf("the server does not answer: %v", err)
	}
}
