package observe

import (
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// States of a backend. Ready is shown for every service, others only where there is one.
const (
	stateReady = iota
	stateUnhealthy
	stateDraining
	stateGone
)

var backendStates = [...]string{"ready", "unhealthy", "draining", "gone"}

// address is a Machine as the kernel knows it.
type address struct {
	network sixpn.Network
	host    sixpn.Host
	machine sixpn.Machine
}

func addressOf(b maps.Backend) address { return address{b.Network, b.Host, b.Machine} }

// backendMachine is what a backend's state depends on.
type backendMachine struct {
	id        string // empty: there is no such Machine
	readiness flycast.Readiness
	unhealthy []uint16 // internal ports whose service has a check that fails
}

// byAddress are the Machines of a snapshot: of the whole fleet, so they are looked
// through once a snapshot, not once a scrape.
type byAddress struct {
	of       *state.Snapshot
	machines map[address]backendMachine
}

func (o *Collector) numbered(s *state.Snapshot) map[address]backendMachine {
	if o.machines.of == s {
		return o.machines.machines
	}
	found := make(map[address]backendMachine, len(s.Machines))
	for _, m := range s.Machines {
		b := backendMachine{id: m.ID, readiness: flycast.MachineReadiness(m)}
		for i, service := range m.Config.Services {
			if !m.Healthy(i) {
				b.unhealthy = append(b.unhealthy, service.InternalPort)
			}
		}
		found[address{m.Network, m.Host, m.Number}] = b
	}
	o.machines = byAddress{s, found}
	return found
}

// backendState is what a backend can be used for.
func backendState(load maps.BackendLoad, m backendMachine) int {
	switch {
	case load.Gone || m.id == "" || m.readiness == flycast.Gone:
		return stateGone
	case m.readiness == flycast.Draining:
		return stateDraining
	case slices.Contains(m.unhealthy, load.Port):
		return stateUnhealthy
	default:
		return stateReady
	}
}
