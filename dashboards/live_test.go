package dashboards_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	miekg "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/dashboards"
	"github.com/sixpn/sixpn/internal/nettest"
)

const (
	upstream = "127.0.0.1:5300" // in a namespace of the test's own
	rates    = "10s"            // what Grafana's $__rate_interval would be at a scrape a second
)

// busy are the panels that traffic must show in: their queries have a series above zero.
var busy = []string{
	"host/Build/A", "host/Since start/A", "host/Started Machines/A", "host/Packets/A", "host/Bytes/A", "host/Dropped packets/A",
	"host/Ports/A", "host/Machines/A", "host/Propagation/A", "host/Propagation/B", "host/Revisions/A", "host/Revisions/B",
	"host/Serving/A", "host/Database/A", "host/Database/B", "host/Database/C", "host/Time to disk/A", "host/Time to disk/B",
	"host/Records/A", "host/Tables in use/A", "host/Time a packet/A", "host/CPU in programs/A", "host/CPU of the agent/A", "host/Memory of the agent/A",
	"network/Packets/A", "network/Bytes/A", "network/Dropped packets/A", "network/Flycast flows/A", "network/Flycast flows/B",
	"network/Machines/A", "network/Checks/A", "network/New flows/A",
	"flycast/Live flows/A", "flycast/New flows/A", "flycast/Backends/A", "flycast/Use of the hard limit/A", "flycast/Choices/A",
	"flycast/Shares/A", "flycast/Use of shares/A", "flycast/Flows of other hosts/A", "flycast/Flows of other hosts/B",
	"flycast/Live flows by backend/A", "flycast/Live flows of the host/A", "flycast/Live flows of the host/B",
	"dns/By type/A", "dns/By status/A", "dns/By source/A", "dns/By transport/A", "dns/Median time/A", "dns/99 % time/A",
	"dns/Found in the cache/A", "dns/Up/A", "dns/Exchanges/A", "dns/99 % time of exchanges/A",
	"fleet/Present/A", "fleet/Builds/A", "fleet/Presence/A", "fleet/Round trip/A", "fleet/Deviation/A", "fleet/Age of the handshake/A",
	"fleet/Voters/A", "fleet/Voters/B", "fleet/Voters by host/A", "fleet/Reached by hosts/A", "fleet/Revision of the store/A", "fleet/Certificate/A",
	"drops/By reason/A", "drops/By host/A", "drops/By network/A", "drops/Share/A", "drops/Totals/A",
}

// Every panel and every rule says something of two hosts, one under traffic, whether their
// histograms were scraped with native buckets or with classic ones.
func TestLive(t *testing.T) {
	t.Parallel()
	ctx := nettest.Context(t)
	f := startHosts(ctx, t)
	h, other := f.Hosts[0], metricsOf(f.Hosts[1])
	startTraffic(ctx, t, f)
	measured, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	must(t, err)
	t.Cleanup(func() { must(t, measured.Close()) })
	for _, kind := range []struct {
		name, listen string
		flags        []string
	}{
		{"native", "127.0.0.1:9090", []string{"--enable-feature=native-histograms"}},
		{"classic", "127.0.0.1:9091", nil},
	} {
		p := startPrometheus(ctx, t, h, kind.listen, []string{nettest.MetricsAddress, other}, kind.flags...)
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			asked := map[string]bool{}
			for _, d := range dashboards.All() {
				for _, row := range d.Rows {
					for _, panel := range row.Panels {
						for i, q := range panel.Queries {
							asked[name(d, panel, i)] = true
							p.demand(ctx, t, name(d, panel, i), concrete(d, q.Expr, rates), panel.Unit)
						}
					}
				}
			}
			for _, name := range busy {
				if !asked[name] {
					t.Errorf("%s is no query of a dashboard", name)
				}
			}
			p.demandRules(ctx, t)
		})
	}
}

// demand waits until a query has a plausible answer.
func (p *prometheus) demand(ctx context.Context, t *testing.T, name, expression, unit string) {
	t.Helper()
	err := nettest.Eventually(ctx, "there is a plausible answer", func(ctx context.Context) error {
		samples, err := p.query(ctx, expression)
		if err != nil {
			return nettest.Final(err)
		}
		return plausible(samples, unit, slices.Contains(busy, name))
	})
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, expression)
	}
}

// most is the largest value that a unit has in this test's small world.
var most = map[string]float64{
	"percentunit": 4, // shares of one CPU, too
	"s":           3600, "pps": 1e7, "cps": 1e5, "reqps": 1e5, "Bps": 1e11, "bytes": 1e11, "none": 1e7,
}

func plausible(samples []sample, unit string, busy bool) error {
	if len(samples) == 0 {
		return errors.New("the answer is empty")
	}
	above := false
	for _, s := range samples {
		if math.IsNaN(s.value) || s.value < 0 || s.value > most[unit] {
			return fmt.Errorf("%v is %v, expected 0 to %v", s.labels, s.value, most[unit])
		}
		above = above || s.value > 0
	}
	if busy && !above {
		return fmt.Errorf("all %d series are 0, in spite of the traffic", len(samples))
	}
	return nil
}

// demandRules wants that Prometheus evaluates every rule, that every metric in one is
// there, and that none of them has a reason to fire.
func (p *prometheus) demandRules(ctx context.Context, t *testing.T) {
	t.Helper()
	var loaded struct {
		Groups []struct {
			Rules []struct{ Name, Health, State, LastError string }
		}
	}
	must(t, nettest.Eventually(ctx, "every rule was evaluated", func(ctx context.Context) error {
		if err := p.get(ctx, "/api/v1/rules", &loaded); err != nil {
			return err
		}
		for _, group := range loaded.Groups {
			for _, r := range group.Rules {
				if r.Health != "ok" {
					return fmt.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		return nil
	}))
	states := map[string]string{}
	for _, group := range loaded.Groups {
		for _, r := range group.Rules {
			states[r.Name] = r.State
		}
	}
	for _, r := range rules(t) {
		if state, ok := states[r.Alert]; !ok || state == "firing" {
			t.Errorf("%s: loaded %v, state %q", r.Alert, ok, state)
		}
		// A scrape of a host that is short of CPU may be late, and nothing is there then.
		if err := nettest.Eventually(ctx, "its metrics are there", func(ctx context.Context) error { return p.hasMetrics(ctx, r) }); err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
	}
}

// hasMetrics is whether every metric of a rule is there.
func (p *prometheus) hasMetrics(ctx context.Context, r rule) error {
	found := 0
	for _, metric := range metricsIn(r.Expr) {
		// Counted, for a native histogram has no single value.
		samples, err := p.query(ctx, "count("+metric+")")
		if err != nil {
			return err
		}
		if len(samples) > 0 {
			found++
			continue
		}
		// Of a histogram Prometheus keeps native or classic buckets, and the rules ask for
		// either.
		classic, histogram := strings.CutSuffix(metric, "_bucket")
		if !histogram {
			classic += "_bucket"
		}
		if samples, err = p.query(ctx, "count("+classic+")"); err != nil {
			return err
		}
		if len(samples) == 0 {
			return fmt.Errorf("there is no series %s", metric)
		}
	}
	if found == 0 {
		return errors.New("none is there")
	}
	return nil
}

// metricsOf is where the first host finds the metrics of the other.
func metricsOf(h *nettest.Host) string { return netip.AddrPortFrom(h.Uplink.V4, 9464).String() }

// startHosts starts two agents with metrics, of which the first has a resolver for the rest
// of the world.
func startHosts(ctx context.Context, t *testing.T) *nettest.Fleet {
	t.Helper()
	f, err := nettest.NewFleet(nettest.FleetConfig{Host: nettest.Config{AgentFlags: []string{"--members-interval", "1s"}}})
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	h, err := f.NewHost("iad")
	must(t, err)
	var packets net.PacketConn
	must(t, h.Do(func() (err error) {
		packets, err = net.ListenPacket("udp", upstream)
		return err
	}))
	server := &miekg.Server{PacketConn: packets, Handler: miekg.HandlerFunc(func(w miekg.ResponseWriter, query *miekg.Msg) {
		reply := new(miekg.Msg).SetReply(query)
		record, err := miekg.NewRR(query.Question[0].Name + " 2 IN AAAA 2001:db8::1")
		if err == nil {
			reply.Answer = append(reply.Answer, record)
		}
		_ = w.WriteMsg(reply)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	must(t, h.StartAgent(ctx, "--metrics-listen", nettest.MetricsAddress, "--upstream", upstream))
	second, err := f.NewHost("fra")
	must(t, err)
	must(t, f.Join(ctx, second, "--metrics-listen", metricsOf(second)))
	must(t, f.Meet(ctx))
	return f
}

// startTraffic has Machines talk until the test ends: streams, new connections and
// datagrams to a service with a limit, also from the second host, queries of all kinds,
// packets that are dropped, and changes of the store.
func startTraffic(ctx context.Context, t *testing.T, f *nettest.Fleet) {
	t.Helper()
	h, second := f.Hosts[0], f.Hosts[1]
	must(t, h.CreateOrg(ctx, "acme"))
	must(t, h.CreateApp(ctx, "web", "acme"))
	must(t, h.CreateApp(ctx, "client", "acme"))
	server := createServer(ctx, t, h)
	vip, err := h.AllocateVIP(ctx, "web", "")
	must(t, err)
	at := netip.AddrPortFrom(vip, 80).String()
	_, err = h.Run(ctx, "client", nettest.Options{}, h.Payload("traffic", "-open", "open="+at, "-stream", "stream="+at, "-speed", "100000",
		"-numbered", "numbered="+netip.AddrPortFrom(server.Addr, 9000).String(), "-rate", "100")...)
	must(t, err)
	must(t, f.Settle(ctx))
	_, err = second.Run(ctx, "client", nettest.Options{}, h.Payload("traffic", "-stream", "stream="+at, "-speed", "1000")...)
	must(t, err)
	asker, err := h.Run(ctx, "client", nettest.Options{}, h.Payload("idle")...)
	must(t, err)

	other := server.Addr.As16()
	other[10] = 0x7f // the machine field: there is no such Machine
	nobody := netip.AddrPortFrom(netip.AddrFrom16(other), 1)
	working, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	t.Cleanup(func() { stop(); work.Wait() })
	every := func(do func(round int) error) {
		work.Go(func() {
			ticker := time.NewTicker(200 * time.Millisecond)
			defer ticker.Stop()
			for round := 0; ; round++ {
				select {
				case <-working.Done():
					return
				case <-ticker.C:
				}
				if err := do(round); err != nil && working.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	every(func(int) error { // one name of each kind, and two ways to ask
		for _, query := range [][]string{
			{"AAAA", "web.internal"}, {"TXT", "_instances.internal"}, {"AAAA", "nothere.internal"}, {"-tcp", "AAAA", "web.internal"},
			{"AAAA", "example.com"}, {"AAAA", "example.com"}, {"AAAA", "web.flycast"},
		} {
			if _, err := asker.Exec(working, h.Payload(append([]string{"lookup"}, query...)...)...); err != nil {
				return err
			}
		}
		return nil
	})
	every(func(int) error { // to a Machine that there is not
		_, err := asker.Exec(working, h.Payload("connect", "-timeout", "100ms", nobody.String())...)
		return err
	})
	every(func(round int) error {
		return h.CreateApp(working, fmt.Sprintf("more%d", round), "acme")
	})
}

// createServer runs a Machine of app web whose service has limits.
func createServer(ctx context.Context, t *testing.T, h *nettest.Host) *nettest.Machine {
	t.Helper()
	limits := &api.Concurrency{SoftLimit: 50, HardLimit: 100}
	answer, err := h.Client.CreateMachineWithResponse(ctx, "web", &api.CreateMachineParams{}, api.CreateMachineRequest{Config: api.MachineConfig{
		Init: api.Init{Exec: h.Payload("serve", "-tcp", "8080", "-udp", "9000")},
		Services: []api.Service{{Protocol: "tcp", InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}}, Concurrency: limits,
			Checks: []api.HealthCheck{{Type: "tcp", Interval: api.DurationValue(time.Second)}}}},
	}})
	must(t, api.Check(answer, err))
	addr, err := netip.ParseAddr(answer.JSON200.PrivateIP)
	must(t, err)
	m := &nettest.Machine{Host: h, App: "web", ID: answer.JSON200.ID, Addr: addr}
	must(t, m.Wait(ctx, "started"))
	return m
}
