package observe

import (
	"maps"

	"github.com/sixpn/sixpn/state"
)

const sectionMachines = "Machines"

var (
	machinesGauge = gauge(sectionMachines, "machines", "Machines of this host by app and state; started is there for every app that has a Machine, other states only where there is one", "org", "app", "state")
	checksGauge   = gauge(sectionMachines, "checks", "Health checks of this host's Machines by what they said last: passing, warning (not answered yet) or critical", "org", "app", "check", "status")
	relayedPorts  = gauge(sectionMachines, "relayed_ports", "Ports on which Machines listen with IPv4 only, so that a relay, which hides the client's address, stands before them; missing for apps that have none", "org", "app")
)

// maxChecks bounds the names of checks of an app: each Machine may have its own.
const maxChecks = 32

// appSum is what is shown of an app's Machines on this host.
type appSum struct {
	states  map[state.MachineState]int
	checks  map[checkID]int
	names   *bound[string]
	relayed int
}

type checkID struct{ name, status string }

// shownMachines are the series of a snapshot's Machines: they depend on nothing else, so
// they are made once a snapshot, not once a scrape.
type shownMachines struct {
	of     *state.Snapshot
	series *batch
}

func (o *Collector) collectMachines(s *state.Snapshot, to *batch) error {
	if o.shown.of != s {
		o.shown = shownMachines{s, newBatch()}
		o.showMachines(s, o.shown.series)
	}
	maps.Copy(to.families, o.shown.series.families)
	return nil
}

func (o *Collector) showMachines(s *state.Snapshot, to *batch) {
	type owner struct{ org, app string }
	sums := map[owner]*appSum{}
	for _, m := range s.HostMachines(o.config.Host) {
		org, app := o.appNames(s, m.App)
		sum := sums[owner{org, app}]
		if sum == nil {
			sum = &appSum{states: map[state.MachineState]int{state.Started: 0}, checks: map[checkID]int{}, names: newBound[string](maxChecks)}
			sums[owner{org, app}] = sum
		}
		sum.add(m)
	}
	for o, sum := range sums {
		for state, count := range sum.states {
			machinesGauge.emit(to, float64(count), o.org, o.app, string(state))
		}
		for check, count := range sum.checks {
			checksGauge.emit(to, float64(count), o.org, o.app, check.name, check.status)
		}
		if sum.relayed > 0 {
			relayedPorts.emit(to, float64(sum.relayed), o.org, o.app)
		}
	}
}

// add counts a Machine. A check that one Machine has and another has not shows zero for
// the statuses that none is in, so that a status that was left does not linger.
func (a *appSum) add(m state.Machine) {
	a.states[m.State]++
	a.relayed += len(m.Relayed)
	for _, check := range m.Checks {
		name := check.Name
		if !a.names.admits(name) {
			name = other
		}
		for _, status := range []string{state.CheckPassing, state.CheckWarning, state.CheckCritical} {
			a.checks[checkID{name, status}] += 0
		}
		a.checks[checkID{name, check.Status}]++
	}
}
