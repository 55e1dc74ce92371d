package agent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
)

// TestKillUnderTraffic kills the agent at random instants of its start and its
// work, and loses nothing.
func TestKillUnderTraffic(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	traffic := p.startTraffic(ctx, t)
	for range 6 {
		nettest.Must(t, p.KillAgent())
		nettest.Must(t, p.KillDuringStart(ctx, rand.N(1500*time.Millisecond)))
	}
	nettest.Must(t, p.KillAgent())
	nettest.Must(t, p.StartAgent(ctx))
	nettest.EndTraffic(ctx, t, traffic)
	p.works(ctx, t)
}

// TestKillFirstStart kills an agent again and again before it was ever ready. It
// starts in the end, and took one number for its host.
func TestKillFirstStart(t *testing.T) {
	ctx := nettest.Context(t)
	h, err := nettest.NewHost(nettest.Config{})
	nettest.Must(t, err)
	t.Cleanup(func() { nettest.Must(t, h.Close()) })
	for i := range 12 {
		nettest.Must(t, h.KillDuringStart(ctx, time.Duration(i)*80*time.Millisecond))
	}
	nettest.Must(t, h.StartAgent(ctx))
	status, err := h.Status(ctx)
	nettest.Must(t, err)
	if want := sixpn.FirstHost.String(); status.Agent.Host != want || len(status.Ports) != 1 {
		t.Errorf("the host is %s with ports %+v, expected %s and the host port alone", status.Agent.Host, status.Ports, want)
	}
}

// TestKillDuringOrders kills the agent while it makes and ends Machines; the next
// one finishes what was ordered, and nothing else is left.
func TestKillDuringOrders(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	for i := range 5 {
		orders, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			// Whether it is done before the kill does not matter.
			if m, err := p.Host.Run(orders, "web", nettest.Options{Name: fmt.Sprint("short-", i), Services: published}, p.Payload(serverArgs...)...); err == nil {
				_ = m.Destroy(orders)
			}
		}()
		wait(ctx, rand.N(600*time.Millisecond))
		nettest.Must(t, p.KillAgent())
		cancel()
		<-done
		nettest.Must(t, p.StartAgent(ctx))
	}
	nettest.Must(t, p.DestroyOthers(ctx, "web", p.server.ID))
	p.converged(ctx, t, 2)
	p.works(ctx, t)
}

// converged demands that the kernel has what the state says, and no more: so many
// Machines, each with a device and a port.
func (p *pair) converged(ctx context.Context, t *testing.T, machines int) {
	t.Helper()
	nettest.Must(t, nettest.Eventually(ctx, "devices, ports and Machines agree", func(ctx context.Context) error {
		status, err := p.Status(ctx)
		if err != nil {
			return err
		}
		devices, err := p.Devices()
		if err != nil {
			return err
		}
		// Beside the Machines' devices there are lo and the host port.
		if len(status.Ports) != machines+1 || len(devices) != machines+2 || status.Revision.Applied != status.Revision.Wanted {
			return fmt.Errorf("%d ports %+v, devices %v, expected %d Machines", len(status.Ports), status.Ports, devices, machines)
		}
		return nil
	}))
}

// TestTerminate ends the agent in order; the data plane and the Machines go on,
// and the next agent adopts them.
func TestTerminate(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	before := nettest.Get[int](t)(p.server.PID())
	nettest.Must(t, p.StopAgent(ctx))
	for _, address := range []string{at(p.server.Addr, udpPort), at(p.vip, udpPort)} {
		if n := p.answered(t, address, 10, 2*time.Second); n != 10 {
			t.Errorf("without an agent %d of 10 datagrams to %s were answered", n, address)
		}
	}
	if _, err := os.Stat(p.Socket()); !os.IsNotExist(err) {
		t.Errorf("the socket of an agent that ended is %v, expected none", err)
	}
	nettest.Must(t, p.StartAgent(ctx))
	if !logged(t, p.Host, "router opened", "adopted=true", "replaced=false") {
		t.Error("the next agent did not adopt the running router")
	}
	if after := nettest.Get[int](t)(p.server.PID()); after != before {
		t.Errorf("the server was process %d and is %d", before, after)
	}
	p.works(ctx, t)
	p.converged(ctx, t, 2)
}

// TestNewerBuild replaces the program by that of another build, as which one with
// other constants counts, under traffic.
func TestNewerBuild(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	traffic := p.startTraffic(ctx, t)
	for _, rate := range []string{"10", "20"} {
		nettest.Must(t, p.KillAgent())
		nettest.Must(t, p.StartAgent(ctx, "--event-rate", rate))
	}
	if !logged(t, p.Host, "router opened", "adopted=true", "replaced=true") {
		t.Error("no agent replaced the running program")
	}
	nettest.EndTraffic(ctx, t, traffic)
}

// TestPinsDeleted: with the agent dead and its pins deleted every device is closed,
// and the next agent heals it.
func TestPinsDeleted(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	address := at(p.server.Addr, udpPort)
	nettest.Must(t, p.KillAgent())
	nettest.Must(t, os.RemoveAll(p.PinDir()))
	// The kernel takes the programs off a moment later.
	nettest.Must(t, nettest.Eventually(ctx, "the device is closed", func(context.Context) error {
		if n := p.answered(t, address, 1, 50*time.Millisecond); n > 0 {
			return fmt.Errorf("%d datagrams were answered", n)
		}
		return nil
	}))
	for _, closed := range []string{address, at(p.vip, udpPort)} {
		if n := p.answered(t, closed, 10, 200*time.Millisecond); n > 0 {
			t.Errorf("%d datagrams to %s passed a device without a router", n, closed)
		}
	}
	nettest.Must(t, p.StartAgent(ctx))
	// The guest's kernel may have given its gateway up meanwhile, and asks again.
	nettest.Must(t, nettest.Eventually(ctx, "the guest has its gateway back", func(context.Context) error {
		if p.answered(t, address, 1, 200*time.Millisecond) == 0 {
			return errors.New("a datagram was not answered")
		}
		return nil
	}))
	p.works(ctx, t)
	p.converged(ctx, t, 2)
}

// TestPinsRepaired: pins that somebody deletes under a running agent come back.
func TestPinsRepaired(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{AgentFlags: []string{"--repair-interval", "50ms"}})
	nettest.Must(t, os.RemoveAll(p.PinDir()))
	nettest.Must(t, nettest.Eventually(ctx, "the pins are there again", func(context.Context) error {
		links, err := os.ReadDir(p.PinDir() + "/links")
		if err == nil && len(links) != 3 {
			err = fmt.Errorf("there are %d links, expected 3", len(links))
		}
		return err
	}))
	nettest.Must(t, p.KillAgent())
	if n := p.answered(t, at(p.vip, udpPort), 10, 2*time.Second); n != 10 {
		t.Errorf("without an agent %d of 10 datagrams were answered", n)
	}
	nettest.Must(t, p.StartAgent(ctx))
	p.works(ctx, t)
}

// wait lets a random time pass: the instant of a kill is what is tested.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
