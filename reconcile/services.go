package reconcile

import (
	"cmp"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// portRange is a range of VIP ports of one protocol, as a Machine declares it.
type portRange struct {
	protocol    uint8
	first, last uint16
}

// declaration is what one Machine says of such a range.
type declaration struct {
	candidate flycast.Candidate
	limits    state.Concurrency
	handlers  bool
}

// compileServices makes the services of one address. Machines of an app may declare
// different ranges, while a new version is rolled out for instance: where these
// overlap, the ports are cut at every edge, and each piece leads to all Machines that
// declare it. A Machine that does not run still declares: its port exists and answers
// "refused".
func compileServices(view view, vip state.VIP, app state.App, machines []state.Machine, settings Settings) []maps.Service {
	declared := declarations(view, app, machines)
	edges := map[uint8][]uint32{} // by protocol: first ports of pieces
	for r := range declared {
		edges[r.protocol] = append(edges[r.protocol], uint32(r.first), uint32(r.last)+1)
	}
	var services []maps.Service
	for protocol, ports := range edges {
		slices.Sort(ports)
		ports = slices.Compact(ports)
		for i := range len(ports) - 1 {
			piece := portRange{protocol, uint16(ports[i]), uint16(ports[i+1] - 1)}
			var all []declaration
			for r, declarations := range declared {
				if r.protocol == protocol && r.first <= piece.first && piece.last <= r.last {
					all = append(all, declarations...)
				}
			}
			if len(all) > 0 { // else a gap between two ranges
				services = append(services, compileService(vip, app, piece, all, settings))
			}
		}
	}
	return services
}

// declarations collects what the Machines of an app say, by range.
func declarations(view view, app state.App, machines []state.Machine) map[portRange][]declaration {
	declared := map[portRange][]declaration{}
	for _, machine := range machines {
		// The wall stands on this: a service never leads out of its app's network.
		if machine.Network != app.Network {
			continue
		}
		for i, service := range machine.Config.Services {
			protocol := protocolOf(service)
			for _, port := range service.Ports {
				first, last := port.Range()
				if first == 0 || first > last { // refused before it is stored
					continue
				}
				key := portRange{protocol, first, last}
				declared[key] = append(declared[key], declaration{
					candidate: flycast.Candidate{
						Backend: maps.Backend{
							Network: machine.Network,
							Host:    machine.Host,
							Machine: machine.Number,
							Port:    service.InternalPort,
						},
						Region:    machine.Region,
						Readiness: view.readiness(machine),
						Healthy:   machine.Healthy(i),
					},
					limits:   service.Concurrency,
					handlers: len(port.Handlers) > 0,
				})
			}
		}
	}
	return declared
}

// view is a snapshot as this host sees it.
type view struct {
	*state.Snapshot
	host sixpn.Host
	mesh bool // it has a way to other hosts

	silent func(sixpn.Host) bool // Settings.Silent
}

// readiness is flycast.MachineReadiness, but that no new flow goes to a host that is
// not present, or that there is no way to. Those that there are stay: it may be cut off
// from the store alone, and the way be made again. When it is silent as well they would
// hang, so they end.
func (v view) readiness(machine state.Machine) flycast.Readiness {
	r := flycast.MachineReadiness(machine)
	if !v.Present(machine.Host) && v.silent != nil && v.silent(machine.Host) {
		return flycast.Gone
	}
	if !v.Present(machine.Host) || machine.Host != v.host && !v.mesh || !v.Hosts[v.host].Reach(v.Hosts[machine.Host]) {
		return min(r, flycast.Draining)
	}
	return r
}

// allocations are what an address of another network lets its clients reach of the
// Machines of this host, for as long as it exists: the ports that services lead to.
func allocations(vip state.VIP, app state.App, machines []state.Machine, host sixpn.Host) []maps.Allocation {
	var all []maps.Allocation
	for _, machine := range machines {
		if machine.Network != app.Network || machine.Host != host {
			continue
		}
		for _, service := range machine.Config.Services {
			if len(service.Ports) == 0 || service.InternalPort == 0 {
				continue
			}
			all = append(all, maps.Allocation{
				Client: vip.Network, Network: machine.Network, Machine: machine.Number,
				Protocol: protocolOf(service), Port: service.InternalPort,
			})
		}
	}
	return all
}

func protocolOf(service state.Service) uint8 {
	if service.Protocol == "udp" {
		return maps.ProtocolUDP
	}
	return maps.ProtocolTCP
}

func compileService(vip state.VIP, app state.App, piece portRange, declared []declaration, settings Settings) maps.Service {
	service := maps.Service{
		VIP:      maps.VIP{Network: vip.Network, Number: vip.Number},
		Protocol: piece.protocol,
		First:    piece.first,
		Last:     piece.last,
		Action:   bpf.RouterServiceActionSERVICE_BALANCE,
	}
	if vip.Network != app.Network {
		service.Flags |= maps.CrossNetwork
	}
	var candidates []flycast.Candidate
	for _, d := range declared {
		candidates = append(candidates, d.candidate)
		service.SoftLimit = stricter(service.SoftLimit, d.limits.SoftLimit)
		service.HardLimit = stricter(service.HardLimit, d.limits.HardLimit)
		if d.handlers {
			service.Action = bpf.RouterServiceActionSERVICE_HANDLER
		}
	}
	rules := settings.Rules
	rules.Spill = service.SoftLimit != 0 || service.HardLimit != 0
	if rules.Spill && settings.Shared {
		service.Flags |= maps.Shared
	}
	choice := flycast.Choose(candidates, rules)
	service.Backends, service.Farther, service.Draining = choice.Backends, choice.Farther, choice.Draining
	return service
}

// Limits are those of the backends of a host, for whoever uses them from any host.
func Limits(snapshot *state.Snapshot, host sixpn.Host) map[maps.Seat]maps.Limits {
	local := map[string]bool{} // apps with a Machine here
	for _, machine := range snapshot.Machines {
		local[machine.App] = local[machine.App] || machine.Host == host
	}
	machines := map[string][]state.Machine{}
	for _, machine := range snapshot.Machines {
		if local[machine.App] {
			machines[machine.App] = append(machines[machine.App], machine)
		}
	}
	limits := map[maps.Seat]maps.Limits{}
	for _, vip := range snapshot.VIPs {
		app, known := snapshot.Apps[vip.App]
		if !known || !local[vip.App] {
			continue
		}
		for _, s := range compileServices(view{snapshot, host, true, nil}, vip, app, machines[vip.App], Settings{}) {
			for _, backend := range s.All() {
				if backend.Host == host && (s.SoftLimit != 0 || s.HardLimit != 0) {
					limits[maps.Seat{VIP: s.VIP, Protocol: s.Protocol, First: s.First, Backend: backend}] = maps.Limits{Soft: s.SoftLimit, Hard: s.HardLimit}
				}
			}
		}
	}
	return limits
}

// stricter is the lower of two limits, of which 0 is none. Machines of one app differ
// only while a new version is rolled out; until that is over no limit is exceeded.
func stricter(a, b uint32) uint32 {
	if a == 0 || b == 0 {
		return cmp.Or(a, b)
	}
	return min(a, b)
}
