// Package observe says what one agent and its router do, as Prometheus metrics: a
// collector that reads the kernel's tables when it is asked, counters and histograms of
// what passes by in between, and the handler that serves both.
//
// Every metric is one of the families declared beside the code that fills it in; label
// sets are bounded, and what is beyond a bound is counted as "other".
package observe

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	model "github.com/prometheus/client_model/go"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// Config says where the numbers come from. All but the programs and Log are required.
type Config struct {
	Host     sixpn.Host
	Version  string    // of the agent's build
	Started  time.Time // when the agent began
	Tables   *maps.Tables
	Router   *ebpf.Program // on every port but the mesh; nil: not measured, likewise the next three
	Mesh     *ebpf.Program // on the mesh
	Uplink   *ebpf.Program // on the uplink to a fabric between hosts
	Expire   *ebpf.Program // judges flows
	Snapshot func() *state.Snapshot
	Progress func() Progress
	Store    func() state.Health
	// RoundTrips is what was measured of the ways to other hosts. nil: nothing was.
	RoundTrips func() []flycast.RoundTrip
	// Divisions is how the limits of backends are divided among hosts. nil: this host is alone.
	Divisions func() []flycast.Division
	// UplinkXDP is how XDP takes packets from the uplink of a native mesh: "driver", "generic"
	// or "none". nil: the mesh is another.
	UplinkXDP func() (device, mode string)
	// Handshakes is when the mesh last had one with each other host. nil: there is none.
	Handshakes func() map[sixpn.Host]time.Time
	// Certificate is the life of this host's. nil, or zero: it has none.
	Certificate func() (from, until time.Time)
	// Members is the members of the store, of a host that has one. nil: it has none.
	Members func() []Member
	Clock   func() time.Time // nil: time.Now
	Log     *slog.Logger
}

// Bounds of label sets. They are far above what one host of an ordinary fleet has; a
// scrape stays small whatever tenants make.
const (
	maxNetworks  = 1000
	maxApps      = 1000
	maxHosts     = 1000
	maxServices  = 1000
	maxBackends  = 2000
	maxUpstreams = 16
	maxMembers   = 16
)

// Collector is a prometheus.Gatherer of everything that an agent serves. Its methods may
// be called at once.
type Collector struct {
	config   Config
	registry *prometheus.Registry
	errors   *prometheus.CounterVec
	passing  passing

	lastPorts    waiting[maps.PortCounts]
	lastBackends waiting[maps.BackendLoad]

	mu       sync.Mutex // one scrape at a time reads the tables, and the below
	networks *bound[sixpn.Network]
	apps     *bound[string]
	hosts    *bound[sixpn.Host]
	services *bound[serviceID]
	backends *bound[backendID]
	ports    *ledger[portID, portSum]
	choices  *ledger[elementID, backendID]
	flows    *ledger[elementID, serviceID]
	refusals *ledger[quotaID, quotaSum]
	machines byAddress
	shown    shownMachines

	serviceLabels map[serviceID][]string // of the last scrape

	serviceSeries *labelCache[seriesID]
	backendSeries *labelCache[backendSeriesID]
}

const sectionAgent = "Agent"

var (
	buildInfo     = gauge(sectionAgent, "build_info", "Build of the agent, always 1", "version", "goversion")
	startTime     = gauge(sectionAgent, "agent_start_time_seconds", "When the agent began, in seconds since 1970")
	collectErrors = counter(sectionAgent, "collect_errors_total", "Parts of scrapes that could not be read, which the agent's log tells more of", "part")
)

// New makes the collector and its registry. What the tables have counted so far is
// where the sums over ports and backends begin.
func New(c Config) (*Collector, error) {
	switch {
	case c.Tables == nil:
		return nil, errors.New("observe: Config.Tables is missing: give the kernel's tables")
	case c.Snapshot == nil || c.Progress == nil || c.Store == nil:
		return nil, errors.New("observe: Config.Snapshot, Progress or Store is missing: give where the state comes from")
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	o := &Collector{
		config:   c,
		errors:   collectErrors.counts(),
		passing:  newPassing(),
		networks: newBound[sixpn.Network](maxNetworks),
		apps:     newBound[string](maxApps),
		hosts:    newBound[sixpn.Host](maxHosts),
		services: newBound[serviceID](maxServices),
		backends: newBound[backendID](maxBackends),
		ports:    newLedger[portID, portSum](),
		choices:  newLedger[elementID, backendID](),
		flows:    newLedger[elementID, serviceID](),
		refusals: newLedger[quotaID, quotaSum](),

		serviceSeries: newLabelCache[seriesID](),
		backendSeries: newLabelCache[backendSeriesID](),
	}
	for _, part := range o.parts() { // so that the first failure is seen as an increase
		o.errors.WithLabelValues(part.name)
	}
	if err := errors.Join(o.beginPorts(), o.beginFlycast()); err != nil {
		return nil, err
	}
	return o, o.register()
}

// parts are what a scrape reads, one after the other: one that fails leaves the others.
func (o *Collector) parts() []part {
	return []part{
		{"ports", o.collectPorts},
		{"drops", o.collectDrops},
		{"flycast", o.collectFlycast},
		{"quotas", o.collectQuotas},
		{"tables", o.collectTables},
		{"programs", o.collectPrograms},
		{"machines", o.collectMachines},
		{"hosts", o.collectHosts},
		{"shares", o.collectShares},
		{"fleet", o.collectFleet},
		{"trust", o.collectTrust},
		{"progress", o.collectProgress},
		{"store", o.collectStore},
	}
}

type part struct {
	name    string
	collect func(*state.Snapshot, *batch) error
}

// Gather is prometheus.Gatherer: everything that is served. One scrape is at work at a
// time.
func (o *Collector) Gather() ([]*model.MetricFamily, error) {
	read := o.read().list()
	counted, err := o.registry.Gather()
	store, storeErr := storeMetrics()
	all := slices.Concat(read, counted, store)
	byName(all)
	return all, errors.Join(err, storeErr)
}

// read reads what is read at scrape time.
func (o *Collector) read() *batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	to := newBatch()
	buildInfo.emit(to, 1, o.config.Version, runtime.Version())
	startTime.emit(to, float64(o.config.Started.UnixMilli())/1000)
	snapshot := o.config.Snapshot()
	o.forget(snapshot)
	for _, part := range o.parts() {
		if err := part.collect(snapshot, to); err != nil {
			o.errors.WithLabelValues(part.name).Inc()
			o.config.Log.Error("metrics are incomplete", "part", part.name, "error", err)
		}
	}
	return to
}

// forget makes room in the bounds for those that came later.
func (o *Collector) forget(s *state.Snapshot) {
	o.networks.forget(func(n sixpn.Network) bool { _, ok := s.Networks[n]; return ok })
	o.hosts.forget(func(h sixpn.Host) bool { _, ok := s.Hosts[h]; return ok })
	o.apps.forget(func(app string) bool { _, ok := s.Apps[app]; return ok })
}

// networkNames are the labels org and network.
func (o *Collector) networkNames(s *state.Snapshot, n sixpn.Network) (org, network string) {
	if n == 0 {
		return "", ""
	}
	record, ok := s.Networks[n]
	if !ok || !o.networks.admits(n) {
		return other, other
	}
	return record.Org, record.Name
}

// appNames are the labels org and app.
func (o *Collector) appNames(s *state.Snapshot, name string) (org, app string) {
	record, ok := s.Apps[name]
	if !ok || !o.apps.admits(name) {
		return other, other
	}
	return record.Org, record.Name
}

func (o *Collector) register() error {
	o.registry = prometheus.NewRegistry()
	for _, c := range append(o.passing.collectors(), o.errors) {
		if err := o.registry.Register(c); err != nil {
			return fmt.Errorf("observe: %w", err)
		}
	}
	return registerProcess(o.registry)
}
