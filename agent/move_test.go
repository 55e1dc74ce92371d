package agent_test

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// movable is a server in one org and a client in each of two.
type movable struct {
	*pair
	outside *nettest.Machine // client of the org that the server moves to
}

func newMovable(ctx context.Context, t *testing.T) *movable {
	t.Helper()
	p := newPair(ctx, t, nettest.Config{})
	nettest.Must(t, p.CreateOrg(ctx, "other"))
	nettest.Must(t, p.CreateApp(ctx, "outside", "other"))
	m := &movable{pair: p, outside: p.run(ctx, t, "outside", nettest.Options{}, "idle")}
	// One that takes its time to stop.
	nettest.Must(t, p.server.Destroy(ctx))
	p.server = p.run(ctx, t, "web", nettest.Options{Services: published, Linger: 20 * time.Second}, append(serverArgs, "-linger", "1s")...)
	return m
}

// move moves the app and returns its new address and Flycast address.
func (m *movable) move(ctx context.Context, t *testing.T) {
	t.Helper()
	answer, err := m.Client.MoveAppWithResponse(ctx, "web", &api.MoveAppParams{}, api.MoveAppRequest{OrgSlug: "other"})
	nettest.Must(t, api.Check(answer, err))
}

// moved waits until the server is started where it is now, and returns its addresses.
func (m *movable) moved(ctx context.Context, t *testing.T) (addr, vip netip.Addr) {
	t.Helper()
	nettest.Must(t, nettest.Eventually(ctx, "the server is started at another address", func(ctx context.Context) error {
		answer, err := m.Client.GetMachineWithResponse(ctx, "web", m.server.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if addr, err = netip.ParseAddr(answer.JSON200.PrivateIP); err != nil {
			return nettest.Final(err)
		}
		return nil
	}))
	nettest.Must(t, m.server.Wait(ctx, "started"))
	list, err := m.Client.ListIPAssignmentsWithResponse(ctx, "web")
	nettest.Must(t, api.Check(list, err))
	if len(list.JSON200.Ips) != 1 {
		t.Fatalf("after the move the app has the addresses %v, expected one", list.JSON200.Ips)
	}
	return addr, netip.MustParseAddr(list.JSON200.Ips[0].IP)
}

// never looks all the time whether a Machine reaches an address, until it is ended.
func never(t *testing.T, what string, from *nettest.Machine, address func() string) (end func()) {
	t.Helper()
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !over.Load() {
			if to := address(); to != "" {
				if c, err := dialWithin(from, to, 50*time.Millisecond); err == nil {
					c.Close()
					t.Error(what)
					return
				}
			}
		}
	}()
	return func() { over.Store(true); <-done }
}

func fixed(address string) func() string { return func() string { return address } }

// TestMove moves an app to another org while it is looked at from both: nobody ever
// reaches what is not of its own network.
func TestMove(t *testing.T) {
	ctx := nettest.Context(t)
	m := newMovable(ctx, t)
	before, vip := m.server.Addr, m.vip
	lasting := newEcho(t, m.client, at(before, tcpPort))
	endOutside := never(t, "the old address is reached from the new network", m.outside, fixed(at(before, tcpPort)))

	m.move(ctx, t)
	// The old process is told to end and takes a second. It is where it was.
	lasting.says(t, "still here")
	addr, newVIP := m.moved(ctx, t)
	endInside := never(t, "the new address is reached from the old network", m.client, fixed(at(addr, tcpPort)))

	connects(ctx, t, m.outside, at(addr, tcpPort))
	connects(ctx, t, m.outside, at(newVIP, vipPort))
	for what, address := range map[string]string{"address": at(before, tcpPort), "Flycast address": at(vip, vipPort)} {
		if c, err := dial(m.client, address); err == nil {
			c.Close()
			t.Errorf("the old %s is reached", what)
		}
	}
	inside := nettest.Get[string](t)(m.server.Exec(ctx, "sh", "-c", "echo $FLY_PRIVATE_IP; grep fly-local-6pn /etc/hosts; ip -6 addr show eth0; hostname"))
	if strings.Contains(inside, before.String()) || strings.Count(inside, addr.String()) != 3 {
		t.Errorf("inside it says %q, expected %s three times", inside, addr)
	}
	endInside()
	endOutside()
	m.converged(ctx, t, 3)
}

// TestMoveUnderKills kills the agent at instants of the move. The next one finishes.
func TestMoveUnderKills(t *testing.T) {
	ctx := nettest.Context(t)
	m := newMovable(ctx, t)
	before := m.server.Addr
	endOutside := never(t, "the old address is reached from the new network", m.outside, fixed(at(before, tcpPort)))
	m.move(ctx, t)
	for i := range 5 {
		nettest.Must(t, m.KillAgent())
		nettest.Must(t, m.KillDuringStart(ctx, time.Duration(i)*400*time.Millisecond))
	}
	nettest.Must(t, m.KillAgent())
	nettest.Must(t, m.StartAgent(ctx))
	addr, vip := m.moved(ctx, t)
	connects(ctx, t, m.outside, at(addr, tcpPort))
	connects(ctx, t, m.outside, at(vip, vipPort))
	if c, err := dial(m.client, at(addr, tcpPort)); err == nil {
		c.Close()
		t.Error("the new address is reached from the old network")
	}
	endOutside()
	m.converged(ctx, t, 3)
}
