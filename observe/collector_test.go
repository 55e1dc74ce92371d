package observe_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/dns"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/observe"
	"github.com/sixpn/sixpn/state"
)

// happen makes something of every kind happen.
func (w *world) happen() {
	w.t.Helper()
	m := w.records.Machines["00000000000001"]
	m.Relayed = []uint16{8080, 9090}
	m.Checks = []state.CheckStatus{{Name: "alive", Service: -1, Status: state.CheckPassing}}
	w.records.Hosts[5] = state.Host{ID: 5, Name: "near", Region: "iad"}
	w.trips = []flycast.RoundTrip{{Host: 5, Smoothed: time.Millisecond, Probes: 1}}
	w.handshakes = map[sixpn.Host]time.Time{5: time.Unix(50, 0)}
	w.members = []observe.Member{{Host: "here", Voter: true}}
	w.divide(0, 10, 20, flycast.HostShare{Host: here, Share: 7}, flycast.HostShare{Host: 5, Flows: 2, Share: 9})
	w.records.Machines[m.ID] = m
	w.apply()
	w.count(0, bpf.RouterCounters{RxPackets: 3, RxBytes: 300})
	w.count(1, bpf.RouterCounters{RxPackets: 10, RxBytes: 1000, TxPackets: 5, TxBytes: 500, Dropped: 1})
	must(w.t, w.BackendLoad.Put(uint32(1), bpf.RouterLoad{Live: 2, Total: 12, Generation: 1}))
	w.Applied(3 * time.Millisecond)
	names := w.Names()
	names.Answered(dns.Answered{Type: 28, Source: dns.SourceInternal, Transport: "udp", Duration: time.Millisecond})
	names.Health("192.0.2.1:53", true)
	names.Exchanged(dns.Exchanged{Upstream: "192.0.2.1:53", OK: true, Transport: "udp", Duration: time.Millisecond})
}

func TestCollector(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	w.happen()
	const spanned = `app="app1",network="default",org="org1",port="1000-1002",protocol="tcp",vip="fdaa:0:1:0:1::1"`
	expect(t, w.scrape(), map[string]float64{
		`sixpn_port_packets_total{direction="in",kind="machine",network="default",org="org1"}`:  10,
		`sixpn_port_packets_total{direction="out",kind="machine",network="default",org="org1"}`: 5,
		`sixpn_port_packets_total{direction="in",kind="machine",network="default",org="org2"}`:  0,
		`sixpn_port_bytes_total{direction="in",kind="machine",network="default",org="org1"}`:    1000,
		`sixpn_port_packets_total{direction="in",kind="host",network="",org=""}`:                3,
		`sixpn_port_dropped_packets_total{kind="machine",network="default",org="org1"}`:         1,
		`sixpn_ports{kind="machine"}`:                          2,
		`sixpn_ports{kind="host"}`:                             1,
		`sixpn_dropped_packets_total{reason="spoofed_source"}`: 0,
		`sixpn_flow_refusals_total{limit="table"}`:             0,
		`sixpn_service_flow_limit{app="app1",limit="soft",network="default",org="org1",port="80",protocol="tcp",vip="fdaa:0:1:0:1::1"}`: 10,
		`sixpn_service_flow_limit{app="app1",limit="hard",network="default",org="org1",port="80",protocol="tcp",vip="fdaa:0:1:0:1::1"}`: 20,
		`sixpn_service_backends{app="app1",network="default",org="org1",port="80",protocol="tcp",state="ready",vip="fdaa:0:1:0:1::1"}`:  1,
		`sixpn_service_live_flows{` + spanned + `}`:                                               0,
		`sixpn_network_live_flows{network="default",org="org1"}`:                                  0,
		`sixpn_quota_refusals_total{network="default",org="org1",quota="machine"}`:                0,
		`sixpn_table_entries{table="vips"}`:                                                       2,
		`sixpn_table_capacity_entries{table="vips"}`:                                              65536,
		`sixpn_machines{app="app1",org="org1",state="started"}`:                                   1,
		`sixpn_relayed_ports{app="app1",org="org1"}`:                                              2,
		`sixpn_checks{app="app1",check="alive",org="org1",status="passing"}`:                      1,
		`sixpn_checks{app="app1",check="alive",org="org1",status="critical"}`:                     0,
		`sixpn_wanted_revision`:                                                                   5,
		`sixpn_applied_revision`:                                                                  4,
		`sixpn_sync_failures`:                                                                     2,
		`sixpn_store_up`:                                                                          1,
		`sixpn_store_watch_lag_revisions`:                                                         1,
		`sixpn_store_database_bytes`:                                                              30,
		`sixpn_propagation_seconds_count`:                                                         1,
		`sixpn_propagation_seconds_bucket{le="0.005"}`:                                            1,
		`sixpn_dns_upstream_up{upstream="192.0.2.1:53"}`:                                          1,
		`sixpn_agent_start_time_seconds`:                                                          1000,
		`sixpn_dns_answers_total{rcode="NOERROR",source="internal",transport="udp",type="AAAA"}`:  1,
		`sixpn_dns_upstream_exchanges_total{result="ok",transport="udp",upstream="192.0.2.1:53"}`: 1,
		`sixpn_dns_answer_duration_seconds_count{source="internal"}`:                              1,
	})
	// Which of the services has the first element of the backends is the tables' to say.
	live, chosen := 0.0, 0.0
	for name, value := range w.scrape() {
		if strings.HasPrefix(name, "sixpn_backend_live_flows{") {
			live += value
		}
		if strings.HasPrefix(name, "sixpn_service_flows_total{") {
			chosen += value
		}
	}
	if live != 2 || chosen != 12 {
		t.Errorf("backends have %v flows, services had %v, want 2 and 12", live, chosen)
	}
}

// Names, units and help texts are as Prometheus wants them.
func TestLint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.happen()
	// Gatherers makes the checks that a registry makes: no doubles, labels in order.
	problems, err := testutil.GatherAndLint(prometheus.Gatherers{w.Collector}, observe.Names()...)
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// What is declared is served, and what is served is declared.
func TestEveryFamilyIsServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.happen()
	served := w.protobuf()
	for _, name := range observe.Names() {
		// This collector was given no programs; the live test of dashboards has them.
		if served[name] == nil && !slices.Contains([]string{"sixpn_program_run_seconds_total", "sixpn_program_runs_total"}, name) {
			t.Errorf("%s is not served", name)
		}
	}
	for name := range served {
		if strings.HasPrefix(name, "sixpn_") && !slices.Contains(observe.Names(), name) {
			t.Errorf("%s is served and not declared", name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_cpu_seconds_total"} {
		if served[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
}

// Histograms are native for whom can read these, and classic for all.
func TestHistograms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.happen()
	for _, name := range []string{"sixpn_propagation_seconds", "sixpn_dns_answer_duration_seconds", "sixpn_dns_upstream_duration_seconds"} {
		h := w.protobuf()[name].GetMetric()[0].GetHistogram()
		if len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) == 0 {
			t.Errorf("%s has %d native spans and %d classic buckets, want both", name, len(h.GetPositiveSpan()), len(h.GetBucket()))
		}
	}
	open := w.get("application/openmetrics-text; version=1.0.0")
	if kind := open.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(open.Body.String(), "# EOF\n") {
		t.Errorf("OpenMetrics was asked for, the answer is %s and ends with %q", kind, open.Body.String()[max(0, open.Body.Len()-10):])
	}
}

// A counter never falls: not when what it counted goes, nor when that comes back.
func TestCountersNeverFall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 2)
	const in = `sixpn_port_packets_total{direction="in",kind="machine",network="default",org="org1"}`
	w.count(1, bpf.RouterCounters{RxPackets: 10})
	w.count(2, bpf.RouterCounters{RxPackets: 100})
	expect(t, w.scrape(), map[string]float64{in: 110})
	w.count(2, bpf.RouterCounters{RxPackets: 130})
	gone := w.records.Machines["00000000000002"]
	w.records.Machines = maps.Clone(w.records.Machines)
	delete(w.records.Machines, gone.ID)
	w.apply()
	expect(t, w.scrape(), map[string]float64{in: 140})
	w.records.Machines[gone.ID] = gone
	w.apply()
	expect(t, w.scrape(), map[string]float64{in: 140})
	w.count(2, bpf.RouterCounters{RxPackets: 1})
	expect(t, w.scrape(), map[string]float64{in: 141})
	// What was counted before an agent began is not its own.
	fresh, err := observe.New(observe.Config{
		Host: here, Tables: w.tables, Snapshot: func() *state.Snapshot { return w.snapshot },
		Progress: func() observe.Progress { return w.progress }, Store: func() state.Health { return w.health },
	})
	must(t, err)
	w.handler = fresh.Handler()
	expect(t, w.scrape(), map[string]float64{in: 0})
}

// A backend that is gone leaves what it got in the sum of its service.
func TestChoicesOutliveTheirBackend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	const flows = `sixpn_service_flows_total{app="app1",network="default",org="org1",port="80",protocol="tcp",vip="fdaa:0:1:0:1::1"}`
	give := func(total uint64) {
		loads, err := w.tables.Loads()
		must(t, err)
		for _, load := range loads {
			must(t, w.BackendLoad.Put(load.Index, bpf.RouterLoad{Total: total, Generation: load.Generation}))
		}
	}
	give(7)
	expect(t, w.scrape(), map[string]float64{flows: 7})
	give(9)
	m := w.records.Machines["00000000000001"]
	m.State = state.Stopped
	w.records.Machines[m.ID] = m
	for range 3 {
		w.apply()
		w.now = w.now.Add(time.Hour)
	}
	m.State = state.Started
	w.records.Machines[m.ID] = m
	w.apply()
	give(4)
	expect(t, w.scrape(), map[string]float64{flows: 13})
}

// A failing check takes a backend out, and the metrics say so.
func TestUnhealthyBackends(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	for _, c := range []struct {
		name   string
		change func(*state.Machine)
		state  string
	}{
		{"as it is", func(*state.Machine) {}, "ready"},
		{"its check fails", func(m *state.Machine) {
			m.Checks = []state.CheckStatus{{Name: "a", Service: 0, Status: state.CheckCritical}}
		}, "unhealthy"},
		{"a check of the Machine fails", func(m *state.Machine) {
			m.Checks = []state.CheckStatus{{Name: "a", Service: -1, Status: state.CheckCritical}}
		}, "unhealthy"},
		{"its check was not answered yet", func(m *state.Machine) {
			m.Checks = []state.CheckStatus{{Name: "a", Service: 0, Status: state.CheckWarning}}
		}, "ready"},
		{"it stops", func(m *state.Machine) { m.State = state.Stopping }, "draining"},
		{"it is stopped", func(m *state.Machine) { m.State = state.Stopped }, "gone"},
	} {
		m := w.records.Machines["00000000000001"]
		c.change(&m)
		records := w.records
		records.Machines = map[string]state.Machine{m.ID: m}
		w.snapshot = state.Assemble(records) // the tables lag behind
		for _, s := range []string{"ready", "unhealthy", "draining", "gone"} {
			want := 0.0
			if s == c.state {
				want = 1
			}
			name := `sixpn_service_backends{app="app1",network="default",org="org1",port="80",protocol="tcp",state="` + s + `",vip="fdaa:0:1:0:1::1"}`
			if got := w.scrape()[name]; got != want {
				t.Errorf("%s: %v backends are %s, want %v", c.name, got, s, want)
			}
		}
	}
}

// An upstream that is asked no more is in no metric; too many share a label.
func TestUpstreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	names := w.Names()
	names.Health("192.0.2.1:53", true)
	names.Forgotten("192.0.2.1:53")
	for name := range w.scrape() {
		if strings.Contains(name, "192.0.2.1") {
			t.Errorf("%s is of an upstream that is forgotten", name)
		}
	}
	for i := range 100 {
		names.Exchanged(dns.Exchanged{Upstream: sixpn.VIPAddr(1, uint32(i)).String(), Transport: "udp"})
	}
	series := 0
	for name := range w.scrape() {
		if strings.HasPrefix(name, "sixpn_dns_upstream_exchanges_total{") {
			series++
		}
	}
	if series != 17 {
		t.Errorf("100 upstreams have %d series, want 16 and one for all others", series)
	}
	expect(t, w.scrape(), map[string]float64{
		`sixpn_dns_upstream_exchanges_total{result="failed",transport="udp",upstream="other"}`: 84,
	})
}

// A part that cannot be read leaves the others, and is counted.
func TestAPartThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	must(t, w.Quotas.Close())
	w.scrape()
	got := w.scrape()
	if got[`sixpn_collect_errors_total{part="quotas"}`] < 1 {
		t.Error("the failure is not counted")
	}
	expect(t, got, map[string]float64{`sixpn_ports{kind="machine"}`: 1, `sixpn_wanted_revision`: 5})
}

// docs/metrics.md is what the code says.
func TestReference(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../docs/metrics.md")
	must(t, err)
	if string(content) != observe.Reference() {
		t.Error("docs/metrics.md is not what go generate ./observe makes of the code: run it")
	}
	for _, name := range observe.Names() {
		if !strings.Contains(string(content), "`"+name+"`") {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
}

// Of the way to other hosts only what was measured is told, and nothing of a host that
// was removed.
func TestHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.records.Hosts[5] = state.Host{ID: 5, Name: "near", Region: "iad"}
	w.records.Hosts[6] = state.Host{ID: 6, Name: "lost", Region: "fra"}
	w.records.Hosts[9] = state.Host{ID: 9, Name: "new", Region: "fra"}
	w.records.Absent = map[sixpn.Host]bool{6: true}
	w.trips = []flycast.RoundTrip{
		{Host: 5, Smoothed: 2 * time.Millisecond, Variation: time.Millisecond, Probes: 4, Loss: 0.25},
		{Host: 6, Probes: 32, Loss: 1},
		{Host: 9},
		{Host: 8, Smoothed: time.Second, Probes: 4},
	}
	w.health.LimitBytes = 0 // of a store elsewhere it is not known, and must not look like a full one
	w.records.Hosts[10] = state.Host{ID: 10, Name: "leaving", Region: "fra", Draining: true}
	w.handshakes = map[sixpn.Host]time.Time{5: time.Unix(50, 250e6), 6: {}, 8: time.Unix(50, 0)}
	w.members = []observe.Member{{Host: "here", Voter: true, Answers: true}, {Host: "lost", Voter: true}, {Host: "new", Answers: true}}
	w.apply()
	got := w.scrape()
	expect(t, got, map[string]float64{
		`sixpn_hosts{state="present"}`: 3, `sixpn_hosts{state="draining"}`: 1, `sixpn_hosts{state="lost"}`: 1,
		`sixpn_uplink_xdp{device="eth0",mode="generic"}`: 1, `sixpn_uplink_xdp{device="eth0",mode="driver"}`: 0, `sixpn_uplink_xdp{device="eth0",mode="none"}`: 0,
		`sixpn_host_last_handshake_time_seconds{host="near"}`: 50.25,
		`sixpn_store_voter_up{host="here"}`:                   1, `sixpn_store_voter_up{host="lost"}`: 0,
		"sixpn_certificate_start_time_seconds": 100, "sixpn_certificate_end_time_seconds": 400, "sixpn_clock_time_seconds": 2000.5,
		`sixpn_host_present{host="near"}`: 1, `sixpn_host_present{host="lost"}`: 0, `sixpn_host_present{host="new"}`: 1,
		`sixpn_host_round_trip_seconds{host="near"}`: 0.002, `sixpn_host_round_trip_deviation_seconds{host="near"}`: 0.001,
		`sixpn_host_echo_loss_ratio{host="near"}`: 0.25, `sixpn_host_echo_loss_ratio{host="lost"}`: 1,
	})
	n := 0
	for series := range got {
		if strings.HasPrefix(series, "sixpn_host_") {
			n++
		}
		if strings.HasPrefix(series, "sixpn_store_voter_up") && strings.Contains(series, "new") {
			t.Errorf("%s tells of a member without a vote", series)
		}
	}
	if limit, told := got["sixpn_store_database_limit_bytes"]; told {
		t.Errorf("the limit of a store that says none is %v", limit)
	}
	if n != 9 {
		t.Errorf("%d series tell of other hosts, want 9", n)
	}
}
