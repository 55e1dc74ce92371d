package observe

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

const sectionFlycast = "Flycast"

// serviceLabels say which service: org and network are those whose clients see the
// address, port is "80" or "1000-1999".
var serviceLabels = []string{"org", "network", "app", "vip", "protocol", "port"}

func ofService(more ...string) []string { return append(append([]string{}, serviceLabels...), more...) }

var (
	serviceLive     = gauge(sectionFlycast, "service_live_flows", "Live flows of this host's clients by service of a Flycast address", serviceLabels...)
	serviceFlows    = counter(sectionFlycast, "service_flows_total", "Flows that this host's clients began with a service since the agent began", serviceLabels...)
	serviceLimit    = gauge(sectionFlycast, "service_flow_limit", "Live flows that one backend of a service should (soft) or may (hard) have; missing where there is no limit", ofService("limit")...)
	serviceBackends = gauge(sectionFlycast, "service_backends", "Backends of a service by state: ready, and where there are such, unhealthy, draining, or gone with flows left", ofService("state")...)

	backendLabels  = []string{"app", "vip", "protocol", "port", "machine"}
	backendLive    = gauge(sectionFlycast, "backend_live_flows", "Live flows of this host's clients by backend", backendLabels...)
	backendChoices = counter(sectionFlycast, "backend_choices_total", "New flows that were given to a backend since the agent began", backendLabels...)

	flowsLive     = gauge(sectionFlycast, "flow_table_flows", "Live flows in the flow table")
	flowsCapacity = gauge(sectionFlycast, "flow_table_capacity_flows", "Flows that the flow table can hold")
	flowRefusals  = counter(sectionFlycast, "flow_refusals_total", "Packets that asked for a new flow in vain since the tables were made, by what was used up", "limit")
	flowsExpired  = counter(sectionFlycast, "flows_expired_total", "Flows that ended by their timeout since the tables were made")
	flowsGone     = counter(sectionFlycast, "flows_orphaned_total", "Flows whose backend was gone before they ended, since the tables were made")
)

// refusalReasons are the drops that refuse a new flow for want of room.
var refusalReasons = map[bpf.DropReason]string{
	bpf.RouterDropReasonDROP_BACKEND_LIMIT:   "backend",
	bpf.RouterDropReasonDROP_MACHINE_QUOTA:   "machine",
	bpf.RouterDropReasonDROP_NETWORK_QUOTA:   "network",
	bpf.RouterDropReasonDROP_FLOW_TABLE_FULL: "table",
	bpf.RouterDropReasonDROP_SLOTS_TAKEN:     "slots",
}

// serviceID is a service as the kernel numbers them, never reused; 0: one beyond the bound.
type serviceID uint32

// backendID is a backend of a service; the zero value is one beyond the bound.
type backendID struct {
	service serviceID
	maps.Backend
}

// elementID is a place in the table of backends as long as it has one user.
type elementID struct{ index, generation uint32 }

func (o *Collector) beginFlycast() error {
	loads, err := o.config.Tables.Loads()
	for _, load := range loads {
		o.choices.begin(elementOf(load), values{load.Total})
		o.flows.begin(elementOf(load), values{load.Total})
	}
	return err
}

// BackendFreed takes the last counts of a backend: see maps.Options.
func (o *Collector) BackendFreed(last maps.BackendLoad) { o.lastBackends.add(last) }

func elementOf(l maps.BackendLoad) elementID { return elementID{l.Index, l.Generation} }

func (o *Collector) serviceOf(id uint32) serviceID {
	if o.services.admits(serviceID(id)) {
		return serviceID(id)
	}
	return 0
}

func (o *Collector) backendOf(l maps.BackendLoad) backendID {
	id := backendID{serviceID(l.Service), l.Backend}
	if o.serviceOf(l.Service) != 0 && o.backends.admits(id) {
		return id
	}
	return backendID{}
}

// seriesID is a series of a service, extra its last label. The app is part of it for a
// service that is newer than the snapshot, and so counts as another's at first.
type seriesID struct {
	service serviceID
	app     string
	family  *family
	extra   string
}

// backendSeriesID is the same of a backend.
type backendSeriesID struct {
	backendID
	app string
}

// placed is a service as the metrics show it.
type placed struct {
	id       serviceID
	labels   []string
	soft     uint32
	hard     uint32
	live     float64
	backends [len(backendStates)]int // by state
}

func (p *placed) app() string { return p.labels[2] }

// placedServices are the services in the kernel; element 0 is all beyond the bound.
func (o *Collector) placedServices(s *state.Snapshot) (map[serviceID]*placed, error) {
	elements, err := o.config.Tables.Services()
	if err != nil {
		return nil, err
	}
	ids := map[serviceID]bool{}
	type ports struct{ first, last uint16 }
	spans := map[serviceID]ports{}
	for _, e := range elements {
		id := serviceID(e.ID)
		ids[id] = true
		span, ok := spans[id]
		if !ok {
			span = ports{e.First, e.Last}
		}
		spans[id] = ports{min(span.first, e.First), max(span.last, e.Last)}
	}
	o.services.forget(func(id serviceID) bool { return ids[id] })
	services := make(map[serviceID]*placed, len(ids))
	labels := make(map[serviceID][]string, len(ids))
	for _, e := range elements {
		id := o.serviceOf(e.ID)
		if services[id] != nil {
			continue
		}
		// What a service's number stands for never changes, once the snapshot has it.
		p := &placed{id: id, labels: o.serviceLabels[id]}
		if p.labels == nil || p.app() == other {
			p.labels = o.labelsOf(s, id, e, spans[id].first, spans[id].last)
		}
		labels[id], services[id] = p.labels, p
		if id != 0 {
			services[id].soft, services[id].hard = e.SoftLimit, e.HardLimit
		}
	}
	o.serviceLabels = labels
	return services, nil
}

func (o *Collector) labelsOf(s *state.Snapshot, id serviceID, e maps.PlacedService, first, last uint16) []string {
	if id == 0 {
		return []string{other, other, other, other, other, other}
	}
	org, network := o.networkNames(s, e.Network)
	vip := sixpn.VIPAddr(e.Network, e.Number)
	_, app := o.appNames(s, s.VIPs[vip].App)
	port := strconv.Itoa(int(first))
	if first != last {
		port = fmt.Sprintf("%d-%d", first, last)
	}
	return []string{org, network, app, vip.String(), maps.ProtocolName(e.Protocol), port}
}

func (o *Collector) collectFlycast(s *state.Snapshot, to *batch) error {
	services, err := o.placedServices(s)
	if err != nil {
		return err
	}
	loads, err := o.config.Tables.Loads()
	if err != nil {
		return err
	}
	live := map[backendID]float64{}
	shares, divided := map[backendID]shareSum{}, o.divided()
	machines := o.numbered(s)
	for _, load := range loads {
		service, backend := o.serviceOf(load.Service), o.backendOf(load)
		o.flows.see(elementOf(load), service, values{load.Total})
		o.choices.see(elementOf(load), backend, values{load.Total})
		live[backend] += float64(load.Live)
		if d, ok := divided[load.Index]; ok && d.Backend == load.Backend {
			shares[backend] = shares[backend].plus(o.config.Host, d)
		}
		if p := services[service]; p != nil {
			p.live += float64(load.Live)
			p.backends[backendState(load, machines[addressOf(load.Backend)])]++
		}
	}
	for _, last := range o.lastBackends.take() {
		o.flows.gone(elementOf(last), o.serviceOf(last.Service), values{last.Total})
		o.choices.gone(elementOf(last), o.backendOf(last), values{last.Total})
	}
	// A backend stays in the metrics as long as its Machine and its service exist.
	keep := func(b backendID) bool {
		_, exists := machines[addressOf(b.Backend)]
		return exists && services[b.service] != nil || b == backendID{}
	}
	o.backends.forget(keep)
	o.choices.sweep(keep)
	o.flows.sweep(func(id serviceID) bool { return services[id] != nil || id == 0 })
	for _, p := range services {
		o.emitService(to, p)
	}
	for id := range o.choices.sums {
		labels := o.labelsOfBackend(id, services[id.service], machines[addressOf(id.Backend)].id)
		backendChoices.emitPairs(to, float64(o.choices.sums[id][0]), labels)
		backendLive.emitPairs(to, live[id], labels)
		shares[id].emit(to, labels)
	}
	o.serviceSeries.sweep()
	o.backendSeries.sweep()
	counts, err := o.config.Tables.FlowCounts()
	if err == nil {
		flowsExpired.emit(to, float64(counts.Expired))
		flowsGone.emit(to, float64(counts.Gone))
	}
	return err
}

func (o *Collector) emitService(to *batch, p *placed) {
	labels := func(f *family, extra string) pairs {
		return o.serviceSeries.get(seriesID{p.id, p.app(), f, extra}, func() pairs {
			all := slices.Clone(p.labels)
			if extra != "" {
				all = append(all, extra)
			}
			return f.pairs(all...)
		})
	}
	plain := labels(serviceLive, "")
	serviceLive.emitPairs(to, p.live, plain)
	serviceFlows.emitPairs(to, float64(o.flows.sums[p.id][0]), plain)
	if p.soft != 0 {
		serviceLimit.emitPairs(to, float64(p.soft), labels(serviceLimit, "soft"))
	}
	if p.hard != 0 {
		serviceLimit.emitPairs(to, float64(p.hard), labels(serviceLimit, "hard"))
	}
	for state, count := range p.backends {
		if count > 0 || state == stateReady {
			serviceBackends.emitPairs(to, float64(count), labels(serviceBackends, backendStates[state]))
		}
	}
}

func (o *Collector) labelsOfBackend(id backendID, service *placed, machine string) pairs {
	app := other
	if service != nil {
		app = service.app()
	}
	return o.backendSeries.get(backendSeriesID{id, app}, func() pairs {
		if id == (backendID{}) {
			return backendLive.pairs(other, other, other, other, other)
		}
		return backendLive.pairs(append(slices.Clone(service.labels[2:]), machine)...)
	})
}
