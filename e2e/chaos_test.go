package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

var (
	seedFlag  = flag.Uint64("chaos.seed", 0, "seed of the chaos, 0 for another one every time")
	chaosTime = flag.Duration("chaos.time", 20*time.Second, "how long the chaos lasts")
)

const (
	operators = 2 // give orders at the same time
	tcpPort   = 8080
	udpPort   = 9000
	vipPort   = 80
)

// settings make flows end, and tables be tidied up, within the test's time.
var settings = []string{
	"--flow-timeout-syn", "2s", "--flow-timeout-closing", "1s", "--flow-timeout-udp", "5s",
	"--expiry-interval", "200ms", "--reuse-grace", "100ms", "--stop-timeout", "2s",
}

// world is what the chaos happens in.
type world struct {
	*nettest.Host
	server, traffic *nettest.Machine // their traffic is never disturbed
	clients         [2]*nettest.Machine
	kills, stills   atomic.Int64 // and how often a suspended Machine was seen to stand still
	vips, addrs     list[netip.Addr]
	names           list[string] // of apps
	owners          owners
	quiet           quiet
	taps            []string
}

// TestChaos gives random orders while the agent is killed at random instants, with
// traffic all the time. In the end nothing acknowledged is missing, nothing of the
// traffic is lost, and the host is as if all orders had been given in peace.
func TestChaos(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d, repeat with -chaos.seed=%[1]d", seed)
	ctx := nettest.Context(t)
	w := newWorld(ctx, t)
	flows := newProber(t, w, rand.New(rand.NewPCG(seed, 1)))
	orders := chaos(ctx, t, w, flows, seed)

	nettest.EndTraffic(ctx, t, w.traffic)
	nettest.Must(t, w.calmDown())
	// Nobody but the kernel is at work from here on.
	checkHost(ctx, t, w, killAtRest(ctx, t, w, flows), orders)

	nettest.Must(t, w.StartAgent(ctx))
	connects(ctx, t, w.clients[0], netip.AddrPortFrom(w.server.Addr, tcpPort))
	nettest.Must(t, w.StopAgent(ctx))
	traces := nettest.Get[[]string](t)(w.Traces())
	if len(traces) == 0 {
		t.Error("no trace of a running host was found, so none can be missed")
	}
	nettest.Get[string](t)(w.Reset(ctx))
	var theirs []string // what others attached is left to them
	for _, tap := range w.taps {
		theirs = append(theirs, "device "+tap)
	}
	if left := nettest.Get[[]string](t)(w.Traces()); !slices.Equal(left, theirs) {
		t.Errorf("after a reset there are still %q, expected %q", left, theirs)
	}
	nettest.Get[string](t)(w.Reset(ctx, "--state"))
	if _, err := os.Stat(w.StateDir()); !os.IsNotExist(err) {
		t.Errorf("after a reset with --state the state directory is %v, expected none", err)
	}
}

// newWorld makes two orgs, a server with an address for each of them, and clients.
func newWorld(ctx context.Context, t *testing.T) *world {
	t.Helper()
	w := &world{
		Host:   nettest.Start(ctx, t, nettest.Config{AgentFlags: settings}),
		owners: owners{of: map[netip.Addr]string{}, apps: map[string]string{}}, quiet: quiet{since: map[netip.Addr]time.Time{}},
	}
	for i, org := range orgs {
		nettest.Must(t, w.CreateOrg(ctx, org))
		nettest.Must(t, w.CreateApp(ctx, "client-"+org, org))
		w.clients[i] = w.run(ctx, t, "client-"+org, nettest.Options{}, "idle")
	}
	nettest.Must(t, w.CreateApp(ctx, "steady", orgs[0]))
	w.server = w.run(ctx, t, "steady", nettest.Options{Services: published}, serve...)
	vip := nettest.Get[netip.Addr](t)(w.AllocateVIP(ctx, "steady", ""))
	w.vips.add(vip)
	w.owners.put(vip, "steady")
	w.names.add("steady")
	w.know(&machineFact{app: "steady", id: w.server.ID, addr: w.server.Addr})
	plain, tcp := netip.AddrPortFrom(w.server.Addr, udpPort), netip.AddrPortFrom(w.server.Addr, tcpPort)
	vipUDP, vipTCP := netip.AddrPortFrom(vip, udpPort), netip.AddrPortFrom(vip, vipPort)
	w.traffic = w.run(ctx, t, "client-"+orgs[0], nettest.Options{Linger: 20 * time.Second},
		"traffic", "-rate", "500", "-speed", fmt.Sprint(256<<10), "-every", "100ms",
		"-numbered", "plain="+plain.String(), "-numbered", "vip="+vipUDP.String(),
		"-stream", "plain="+tcp.String(), "-stream", "vip="+vipTCP.String(),
		"-open", "plain="+tcp.String(), "-open", "vip="+vipTCP.String())
	return w
}

func (w *world) run(ctx context.Context, t *testing.T, app string, o nettest.Options, args ...string) *nettest.Machine {
	t.Helper()
	return nettest.Get[*nettest.Machine](t)(w.Host.Run(ctx, app, o, w.Payload(args...)...))
}

// chaos lasts for its time and leaves an agent that runs. It returns what was
// ordered.
func chaos(ctx context.Context, t *testing.T, w *world, flows *prober, seed uint64) []*operator {
	t.Helper()
	ending, end := context.WithTimeout(ctx, *chaosTime)
	defer end()
	group, running := errgroup.WithContext(ctx)
	stop := context.AfterFunc(running, end) // one failure ends all
	defer stop()
	kills := 0
	group.Go(func() (err error) {
		kills, err = killer(ctx, ending, w, rand.New(rand.NewPCG(seed, 0)))
		return err
	})
	group.Go(func() error { return flows.work(ctx, ending) })
	names := &asker{prober: flows, random: rand.New(rand.NewPCG(seed, 100))}
	group.Go(func() error { return names.work(ctx, ending) })
	all := make([]*operator, operators)
	for i := range all {
		all[i] = newOperator(w, i, rand.New(rand.NewPCG(seed, uint64(2+i))))
		all[i].guests = newGuests(t, w, i)
		w.taps = append(w.taps, all[i].guests.tap)
		group.Go(func() error { return all[i].work(ctx, ending) })
	}
	nettest.Must(t, group.Wait())
	given, lost := 0, 0
	for _, o := range all {
		given, lost = given+o.given, lost+o.lost
		t.Logf("operator %d: %v", o.number, o.kinds)
	}
	t.Logf("%d names asked, %d denied, %d addresses told; %d times a suspended machine was seen to stand still",
		names.answered, names.denied, names.addresses, w.stills.Load())
	if names.addresses == 0 || names.denied == 0 {
		t.Error("the resolver was not tried")
	}
	t.Logf("%d kills; %d orders, of which %d were never answered", kills, given, lost)
	if kills == 0 || given == 0 {
		t.Error("there was no chaos")
	}
	return all
}

// killer kills the agent, at work and while it starts, until ending.
func killer(ctx, ending context.Context, w *world, random *rand.Rand) (kills int, err error) {
	for ending.Err() == nil {
		pass(ending, moment(random, 2500*time.Millisecond))
		if err := w.KillAgent(); err != nil {
			return kills, err
		}
		kills++
		w.kills.Add(1)
		for range random.IntN(3) {
			if err := w.KillDuringStart(ctx, moment(random, 1500*time.Millisecond)); err != nil {
				return kills, err
			}
			kills++
		}
		if err := w.StartAgent(ctx); err != nil {
			return kills, err
		}
	}
	return kills, nil
}

// moment is a random time below most.
func moment(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most)))
}

// pass lets time pass, less if ctx ends: random instants are what is tested.
func pass(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// connects demands that a connection works.
func connects(ctx context.Context, t *testing.T, from *nettest.Machine, to netip.AddrPort) {
	t.Helper()
	got := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, from, "connect", to.String()))
	if got.OK != 1 {
		t.Errorf("a connection to %s failed: %v", to, got.Errors)
	}
}
