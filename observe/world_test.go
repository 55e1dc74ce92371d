package observe_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	model "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/observe"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

const here sixpn.Host = 7

// world is real tables, a made-up state, and a collector of both.
type world struct {
	*observe.Collector
	*bpf.RouterMaps
	t        testing.TB
	now      time.Time
	records  state.Snapshot // may be changed, before apply
	mu       sync.Mutex     // of snapshot
	snapshot *state.Snapshot
	tables   *maps.Tables
	progress observe.Progress
	health   state.Health
	trips    []flycast.RoundTrip
	divided  []flycast.Division
	handler  http.Handler

	handshakes map[sixpn.Host]time.Time
	members    []observe.Member
}

// newWorld has one started Machine of an app of its own in each of networks in turn,
// with a service on a Flycast address.
func newWorld(t testing.TB, networks, machines int) *world {
	t.Helper()
	w := &world{
		RouterMaps: &bpf.RouterMaps{}, t: t, now: time.Unix(1, 0),
		records: state.Snapshot{
			Revision: 5,
			Orgs:     map[string]state.Org{}, Networks: map[sixpn.Network]state.Network{}, Apps: map[string]state.App{},
			Machines: map[string]state.Machine{}, VIPs: map[netip.Addr]state.VIP{},
			Hosts: map[sixpn.Host]state.Host{here: {ID: here, Name: "here", Region: "iad"}},
		},
		progress: observe.Progress{Wanted: 5, Applied: 4, Failures: 2},
		health:   state.Health{Serving: true, Leader: true, Revision: 6, Bytes: 30, UsedBytes: 20, LimitBytes: 100},
	}
	spec, err := bpf.LoadRouter()
	must(t, err)
	must(t, spec.LoadAndAssign(w.RouterMaps, nil))
	t.Cleanup(func() { must(t, w.RouterMaps.Close()) })
	for i := range networks {
		org := fmt.Sprintf("org%d", i+1)
		w.records.Orgs[org] = state.Org{Slug: org}
		w.records.Networks[sixpn.Network(i+1)] = state.Network{ID: sixpn.Network(i + 1), Org: org, Name: "default"}
	}
	for i := range machines {
		w.addMachine(sixpn.Network(i%networks+1), uint32(i+1))
	}
	w.tables, err = maps.Open(w.RouterMaps, maps.Options{
		Maglev: flycast.Maglev, Now: func() time.Time { return w.now },
		PortRemoved:  func(c maps.PortCounts) { w.PortRemoved(c) },
		BackendFreed: func(l maps.BackendLoad) { w.BackendFreed(l) },
	})
	must(t, err)
	w.apply()
	w.Collector, err = observe.New(observe.Config{
		Host: here, Version: "1.2.3", Started: time.Unix(1000, 0), Tables: w.tables,
		Snapshot: w.latest,
		Progress: func() observe.Progress { return w.progress },
		Store:    func() state.Health { return w.health }, RoundTrips: func() []flycast.RoundTrip { return w.trips },
		Divisions:   func() []flycast.Division { return w.divided },
		Handshakes:  func() map[sixpn.Host]time.Time { return w.handshakes },
		UplinkXDP:   func() (device, mode string) { return "eth0", "generic" },
		Members:     func() []observe.Member { return w.members },
		Certificate: func() (from, until time.Time) { return time.Unix(100, 0), time.Unix(400, 0) },
		Clock:       func() time.Time { return time.Unix(2000, 500e6) },
		Log:         slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	})
	must(t, err)
	w.handler = w.Handler()
	return w
}

func (w *world) addMachine(network sixpn.Network, n uint32) {
	app := fmt.Sprintf("app%d", n)
	w.records.Apps[app] = state.App{Name: app, Org: w.records.Networks[network].Org, Network: network}
	id := fmt.Sprintf("%014x", n)
	w.records.Machines[id] = state.Machine{
		ID: id, App: app, Network: network, Host: here, Number: sixpn.Machine(n), Region: "iad", Desired: state.Started, State: state.Started,
		Config: state.MachineConfig{Services: []state.Service{{
			Protocol: "tcp", InternalPort: 8080, Ports: []state.ServicePort{{Port: 80}, {StartPort: 1000, EndPort: 1002}},
			Concurrency: state.Concurrency{SoftLimit: 10, HardLimit: 20},
		}}},
	}
	vip := state.VIP{Network: network, Number: n, App: app}
	w.records.VIPs[vip.Addr()] = vip
}

// apply makes the records the snapshot, and brings the tables up to date with it.
func (w *world) apply() {
	w.t.Helper()
	w.mu.Lock()
	w.snapshot = state.Assemble(w.records)
	w.mu.Unlock()
	var local reconcile.Local
	for id, m := range w.snapshot.Machines {
		local.Ports = append(local.Ports, reconcile.Port{
			MachineID: id, Ifindex: 100 + uint32(m.Number), Network: m.Network, Host: here, Number: m.Number, MTU: 1420, Peer: true,
		})
	}
	local.HostPort = reconcile.HostPort{Ifindex: 50, MTU: 1420}
	settings := reconcile.DefaultSettings
	settings.TableFlows = w.Flows.MaxEntries()
	_, err := w.tables.Sync(w.t.Context(), reconcile.Compile(w.snapshot, here, local, settings))
	must(w.t, err)
}

func (w *world) latest() *state.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.snapshot
}

// count sets what a port has counted. Ports have their counters in the order of their
// numbers, the host port first.
func (w *world) count(index uint32, c bpf.RouterCounters) {
	w.t.Helper()
	perCPU := make([]bpf.RouterCounters, ebpf.MustPossibleCPU())
	perCPU[len(perCPU)-1] = c
	must(w.t, w.PortCounters.Put(index, perCPU))
}

// scrape asks as Prometheus does, in the text format.
func (w *world) scrape() map[string]float64 {
	w.t.Helper()
	series := map[string]float64{}
	for _, line := range strings.Split(w.get("text/plain").Body.String(), "\n") {
		name, value, ok := cutLast(line)
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		var v float64
		_, err := fmt.Sscan(value, &v)
		must(w.t, err)
		series[name] = v
	}
	return series
}

func cutLast(line string) (before, after string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

func (w *world) get(accept string) *httptest.ResponseRecorder {
	w.t.Helper()
	request := httptest.NewRequest(http.MethodGet, observe.Path, nil)
	request.Header.Set("Accept", accept)
	answer := httptest.NewRecorder()
	w.handler.ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		w.t.Fatalf("a scrape is answered with %d: %s", answer.Code, answer.Body)
	}
	return answer
}

// protobuf is a scrape in the format that has native histograms.
func (w *world) protobuf() map[string]*model.MetricFamily {
	w.t.Helper()
	answer := w.get(`application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited`)
	format := expfmt.ResponseFormat(answer.Header())
	decoder := expfmt.NewDecoder(answer.Body, format)
	families := map[string]*model.MetricFamily{}
	for {
		f := &model.MetricFamily{}
		if err := decoder.Decode(f); err != nil {
			if len(families) == 0 {
				w.t.Fatalf("no family in the answer of type %s: %v", answer.Header().Get("Content-Type"), err)
			}
			return families
		}
		families[f.GetName()] = f
	}
}

// expect compares some series.
func expect(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if v, ok := got[name]; !ok {
			t.Errorf("there is no series %s", name)
		} else if v != value {
			t.Errorf("%s is %v, want %v", name, v, value)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testWriter puts a log into the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
