package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// twoHosts is a fleet with an org on both hosts.
type twoHosts struct {
	*nettest.Fleet
	here, there *nettest.Machine // servers of apps of these names, on the first and the second host
}

// startTwoHosts makes a fleet, an org with a server on each host, and more if asked.
func startTwoHosts(ctx context.Context, t *testing.T, c nettest.FleetConfig) *twoHosts {
	t.Helper()
	f := &twoHosts{Fleet: nettest.StartFleet(ctx, t, c)}
	f.org(ctx, t, "acme")
	f.here, f.there = f.server(ctx, t, 0, "acme-here"), f.server(ctx, t, 1, "acme-there")
	return f
}

// org makes an org with an app for each host.
func (f *twoHosts) org(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	nettest.Must(t, f.Hosts[0].CreateOrg(ctx, name))
	for _, app := range []string{name + "-here", name + "-there"} {
		nettest.Must(t, f.Hosts[0].CreateApp(ctx, app, name))
	}
	nettest.Must(t, f.Settle(ctx))
}

func (f *twoHosts) server(ctx context.Context, t *testing.T, host int, app string) *nettest.Machine {
	t.Helper()
	o := nettest.Options{Services: []string{fmt.Sprintf("%d:%d/tcp", vipPort, tcpPort), fmt.Sprintf("%d:%d/udp", udpPort, udpPort)}, MTU: 9000}
	m := nettest.Get[*nettest.Machine](t)(f.Hosts[host].Run(ctx, app, o, f.Hosts[host].Payload(serve...)...))
	nettest.Must(t, f.Settle(ctx))
	return m
}

func on(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

// talk counts what of some connections, datagrams and pings is answered.
func talk(ctx context.Context, t *testing.T, from *nettest.Machine, to netip.Addr, limit time.Duration) (tcp, udp, echo int) {
	t.Helper()
	count, timeout := []string{"-count", strconv.Itoa(probes)}, []string{"-timeout", limit.String()}
	args := func(payload, target string) []string {
		return append(slices.Concat([]string{payload}, count, timeout), target)
	}
	c := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, from, slices.Insert(args("connect", on(to, tcpPort)), 1, "-parallel", "5")...))
	d := nettest.Get[payload.Datagrams](t)(nettest.Probe[payload.Datagrams](ctx, from, args("datagrams", on(to, udpPort))...))
	p := nettest.Get[payload.Datagrams](t)(nettest.Probe[payload.Datagrams](ctx, from, args("ping", to.String())...))
	return c.OK, d.Received, p.Received
}

const probes = 10

// reach demands that all of it is answered.
func reach(ctx context.Context, t *testing.T, from *nettest.Machine, to netip.Addr) {
	t.Helper()
	if tcp, udp, echo := talk(ctx, t, from, to, 10*time.Second); tcp != probes || udp != probes || echo != probes {
		t.Errorf("from %s to %s, of %d each, %d connections, %d datagrams and %d pings were answered", from.App, to, probes, tcp, udp, echo)
	}
}

// miss demands that none is.
func miss(ctx context.Context, t *testing.T, from *nettest.Machine, to netip.Addr) {
	t.Helper()
	if tcp, udp, echo := talk(ctx, t, from, to, 500*time.Millisecond); tcp+udp+echo > 0 {
		t.Errorf("from %s to %s, %d connections, %d datagrams and %d pings were answered, expected none", from.App, to, tcp, udp, echo)
	}
}

// TestMesh: what Machines on two hosts are to each other, over an underlay of each
// family; and what stands between the hosts sees none of it.
func TestMesh(t *testing.T) {
	for _, row := range []struct {
		name string
		ipv6 bool
		mtu  int // of the underlay
	}{{"IPv4", false, 1500}, {"IPv6, smaller", true, 1400}} {
		t.Run(row.name, func(t *testing.T) {
			ctx := nettest.Context(t)
			f := &twoHosts{Fleet: nettest.Get[*nettest.Fleet](t)(nettest.NewFleet(nettest.FleetConfig{IPv6: row.ipv6, MTU: row.mtu}))}
			t.Cleanup(func() { nettest.Must(t, f.Close()) })
			// Before the first connection begins.
			capture := nettest.Get[*nettest.Capture](t)(f.Underlay.Capture())
			nettest.Must(t, f.Start(ctx))
			for _, org := range []string{"acme", "rival"} {
				f.org(ctx, t, org)
			}
			f.here, f.there = f.server(ctx, t, 0, "acme-here"), f.server(ctx, t, 1, "acme-there")
			rival := f.server(ctx, t, 1, "rival-there")
			spy := f.server(ctx, t, 0, "rival-here")

			reach(ctx, t, f.here, f.there.Addr)
			reach(ctx, t, f.there, f.here.Addr)
			reach(ctx, t, spy, rival.Addr)
			miss(ctx, t, spy, f.there.Addr)
			miss(ctx, t, rival, f.here.Addr)
			testLarge(ctx, t, f, row.mtu-80)
			testFlycast(ctx, t, f)
			testSegments(ctx, t, f)
			testNames(ctx, t, f)
			testStopped(ctx, t, f)

			nettest.Must(t, capture.Close())
			testSealed(t, capture.Frames())
		})
	}
}

// testLarge: the path's MTU is learned both ways, and streams arrive whole.
func testLarge(ctx context.Context, t *testing.T, f *twoHosts, mtu int) {
	t.Helper()
	const bulk = 8 << 20
	for _, row := range [][2]*nettest.Machine{{f.here, f.there}, {f.there, f.here}} {
		seen := nettest.Get[payload.PathMTU](t)(nettest.Probe[payload.PathMTU](ctx, row[0], "path-mtu", "-timeout", nettest.Slow(12*time.Second).String(), "-size", "4000", "-bulk", strconv.Itoa(bulk), row[1].Addr.String()))
		want := payload.PathMTU{Device: 9000, Before: 9000, After: mtu, Refused: true, Delivered: true, Bulk: bulk}
		if seen.Before == mtu { // what this one sent the other way before had it told already
			want.Before = mtu
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("from %s to %s (-want +got):\n%s", row[0].App, row[1].App, diff)
		}
	}
}

// testFlycast: a VIP whose only backend is on the other host.
func testFlycast(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	for _, row := range []struct{ from, to *nettest.Machine }{{f.here, f.there}, {f.there, f.here}} {
		vip := nettest.Get[netip.Addr](t)(f.Hosts[0].AllocateVIP(ctx, row.to.App, ""))
		nettest.Must(t, f.Settle(ctx))
		tcp := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, row.from, "connect", "-count", strconv.Itoa(probes), on(vip, vipPort)))
		udp := nettest.Get[payload.Datagrams](t)(nettest.Probe[payload.Datagrams](ctx, row.from, "datagrams", "-count", strconv.Itoa(probes), on(vip, udpPort)))
		if tcp.Answers[row.to.ID] != probes || udp.Answers[row.to.ID] != probes {
			t.Errorf("from %s through Flycast to %s: %+v, %+v", row.from.App, row.to.App, tcp, udp)
		}
	}
}

// testNames: dig, on both hosts, finds the Machines of both.
func testNames(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	for _, asker := range []*nettest.Machine{f.here, f.there} {
		for _, m := range []*nettest.Machine{f.here, f.there} {
			for _, name := range []string{m.App + ".internal", m.ID + ".vm." + m.App + ".internal"} {
				if got := resolve(ctx, t, asker, name); !slices.Equal(got, []string{m.Addr.String()}) {
					t.Errorf("%s asks for %s and gets %q, expected %s", asker.App, name, got, m.Addr)
				}
			}
		}
	}
}

// testStopped: a Machine that was stopped is in no answer of the other host a second
// later, and a Machine that is started again is back.
func testStopped(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	var asked time.Time // the last question that was answered otherwise
	holds := func(want string) error {
		return nettest.Eventually(ctx, "the other host's answer is "+want, func(ctx context.Context) error {
			now := time.Now()
			if got := strings.Join(resolve(ctx, t, f.here, f.there.App+".internal"), " "); got != want {
				asked = now
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
	}
	nettest.Must(t, f.there.Stop(ctx))
	began := time.Now()
	nettest.Must(t, holds(""))
	if late := asked.Sub(began); late > nettest.Slow(withdrawnElsewhere) {
		t.Errorf("a Machine that was stopped was in an answer of another host after %v, expected %v at most", late, withdrawnElsewhere)
	}
	nettest.Must(t, f.there.Wait(ctx, "stopped"))
	nettest.Must(t, f.there.Start(ctx))
	nettest.Must(t, holds(f.there.Addr.String()))
}

// withdrawnElsewhere is how long after a stop another host may still name the Machine.
const withdrawnElsewhere = time.Second

// testSealed: to us and to tshark, all that passed between the hosts is WireGuard or TLS.
func testSealed(t *testing.T, frames []nettest.Frame) {
	t.Helper()
	seen, err := nettest.Sealed(frames)
	nettest.Must(t, err)
	if seen.WireGuard == 0 || seen.TLS == 0 {
		t.Errorf("the capture has %+v, expected WireGuard and TLS", seen)
	}
	path := filepath.Join(t.TempDir(), "capture.pcap")
	file := nettest.Get[*os.File](t)(os.Create(path))
	nettest.Must(t, errors.Join(nettest.WritePcap(file, frames), file.Close()))
	output, err := exec.Command("tshark", "-r", path, "-T", "fields", "-e", "_ws.col.Protocol", "-Y",
		"not arp and not icmp and not icmpv6 and not (tcp and tcp.len == 0)").Output()
	nettest.Must(t, err)
	counts := map[string]int{}
	for protocol := range strings.FieldsSeq(string(output)) {
		counts[protocol]++
	}
	// A segment in the middle of a record is TCP to tshark.
	delete(counts, "TCP")
	want := map[string]int{"WireGuard": seen.WireGuard}
	if diff := cmp.Diff(want, counts, cmpopts.IgnoreMapEntries(func(name string, _ int) bool { return strings.HasPrefix(name, "TLS") })); diff != "" {
		t.Errorf("protocols by tshark (-want +got):\n%s", diff)
	}
}

// TestFleetKilledAgents: each agent in turn is killed while Machines of both hosts talk,
// and nothing is lost.
func TestFleetKilledAgents(t *testing.T) {
	ctx := nettest.Context(t)
	testKilledAgents(ctx, t, startTwoHosts(ctx, t, nettest.FleetConfig{}))
}

func testKilledAgents(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	vip := nettest.Get[netip.Addr](t)(f.Hosts[0].AllocateVIP(ctx, "acme-there", ""))
	nettest.Must(t, f.Settle(ctx))
	traffic := nettest.Get[*nettest.Machine](t)(f.Hosts[0].Run(ctx, "acme-here", nettest.Options{Name: "traffic", Hidden: true, Linger: 20 * time.Second}, f.Hosts[0].Payload("traffic",
		"-rate", "100", "-speed", "65536", "-every", "200ms", "-numbered", "plain="+on(f.there.Addr, udpPort), "-numbered", "vip="+on(vip, udpPort),
		"-stream", "plain="+on(f.there.Addr, tcpPort), "-stream", "vip="+on(vip, vipPort), "-open", "plain="+on(f.there.Addr, tcpPort), "-open", "vip="+on(vip, vipPort))...))
	for _, h := range f.Hosts {
		nettest.Must(t, h.KillAgent())
		pass(ctx, 2*time.Second) // of traffic without an agent
		nettest.Must(t, h.StartAgent(ctx))
	}
	nettest.Must(t, f.Settle(ctx))
	nettest.EndTraffic(ctx, t, traffic)
}

// TestFleetCut: a host that is cut off leaves the names of the others when its lease is
// over, and comes back; what runs on one side goes on.
func TestFleetCut(t *testing.T) {
	ctx := nettest.Context(t)
	f := startTwoHosts(ctx, t, nettest.FleetConfig{})
	beside := f.server(ctx, t, 1, "acme-there")
	both := []string{f.there.Addr.String(), beside.Addr.String()}
	slices.Sort(both)
	holds := func(asker *nettest.Machine, want ...string) error {
		return nettest.Eventually(ctx, "acme-there.internal changes", func(ctx context.Context) error {
			got := resolve(ctx, t, asker, "acme-there.internal")
			if slices.Sort(got); !slices.Equal(got, want) {
				return fmt.Errorf("it is %q, expected %q", got, want)
			}
			return nil
		})
	}
	second := f.Hosts[1].Uplink
	for name, cut := range map[string]func() error{
		"both ways": second.Cut,
		"one way":   func() error { return second.CutTo(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			nettest.Must(t, cut())
			began := time.Now()
			nettest.Must(t, holds(f.here))
			if took := time.Since(began); took > lease+late {
				t.Errorf("its Machines left the names after %v, expected the lease of %v", took, lease)
			}
			reach(ctx, t, beside, f.there.Addr)
			nettest.Must(t, holds(f.there, both...)) // to itself it is there
			nettest.Must(t, second.Heal())
			nettest.Must(t, holds(f.here, both...))
			reach(ctx, t, f.here, f.there.Addr)
			reach(ctx, t, f.there, f.here.Addr)
		})
	}
}

// TestFleetStoreOutage: while the host of the store has no agent, the other answers and
// forwards, also after its own agent was killed.
func TestFleetStoreOutage(t *testing.T) {
	ctx := nettest.Context(t)
	f := startTwoHosts(ctx, t, nettest.FleetConfig{})
	traffic := nettest.Get[*nettest.Machine](t)(f.Hosts[1].Run(ctx, "acme-there", nettest.Options{Name: "traffic", Hidden: true, Linger: 20 * time.Second}, f.Hosts[1].Payload("traffic",
		"-rate", "100", "-speed", "65536", "-every", "200ms", "-numbered", "here="+on(f.here.Addr, udpPort), "-numbered", "there="+on(f.there.Addr, udpPort),
		"-stream", "here="+on(f.here.Addr, tcpPort), "-stream", "there="+on(f.there.Addr, tcpPort))...))
	nettest.Must(t, f.Hosts[0].KillAgent())
	for began := time.Now(); time.Since(began) < lease+late; {
		for _, m := range []*nettest.Machine{f.here, f.there} {
			got := resolve(ctx, t, f.there, m.ID+".vm."+m.App+".internal")
			if !slices.Equal(got, []string{m.Addr.String()}) {
				t.Fatalf("%v without the store, %s has the name of %q", time.Since(began), m.App, got)
			}
		}
		reach(ctx, t, f.there, f.here.Addr)
	}
	nettest.Must(t, f.Hosts[0].StartAgent(ctx))
	nettest.Must(t, f.Settle(ctx))
	testNames(ctx, t, f)
	nettest.EndTraffic(ctx, t, traffic)
}
