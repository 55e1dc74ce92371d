package flycast

import (
	"cmp"
	"slices"

	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// Readiness is what a backend can be used for.
type Readiness uint8

// From least to most.
const (
	Gone     Readiness = iota // its process does not run: its flows are reset
	Draining                  // keeps the flows it has
	Ready                     // takes new flows
)

// MachineReadiness says what a Machine can be used for. A Machine that was told to
// stop takes no new flow from that moment on, before its host has heard of it; one
// that is cordoned neither. One that is suspended has its connections still, and goes
// on with them some time.
func MachineReadiness(m state.Machine) Readiness {
	switch m.State {
	case state.Started:
		if m.Cordoned || m.Desired == state.Stopped || m.Desired == state.Suspended || m.Desired == state.Destroyed {
			return Draining
		}
		return Ready
	case state.Stopping, state.Suspending, state.Suspended:
		return Draining
	default:
		return Gone
	}
}

// Candidate is a backend that a service might use, and all that the choice looks at.
type Candidate struct {
	Backend   maps.Backend
	Region    string
	Readiness Readiness
	Healthy   bool // state.Machine.Healthy of the service
}

// Rules are what the choice prefers. The zero value prefers nothing.
type Rules struct {
	// Distance ranks a candidate's region as seen from this host, lower is nearer;
	// only the nearest that are ready take new flows. nil: all regions are as near.
	Distance func(region string) int
}

// Choice is the outcome: who takes new flows, and who keeps those it has. Both are
// ordered by network, host, machine and port, without doubles.
type Choice struct {
	Backends []maps.Backend
	Draining []maps.Backend
}

// Choose picks the backends of a service. A candidate that is ready, but unhealthy or
// not near enough, keeps the flows it has, as one that drains does. When all that are
// ready are unhealthy the checks are believed less than the Machines: all are used.
func Choose(candidates []Candidate, rules Rules) Choice {
	distance := rules.Distance
	if distance == nil {
		distance = func(string) int { return 0 }
	}
	healthy := slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Readiness == Ready && c.Healthy })
	eligible := func(c Candidate) bool { return c.Readiness == Ready && (c.Healthy || !healthy) }
	nearest, any := 0, false
	for _, c := range candidates {
		if d := distance(c.Region); eligible(c) && (!any || d < nearest) {
			nearest, any = d, true
		}
	}
	var choice Choice
	for _, c := range candidates {
		switch {
		case eligible(c) && distance(c.Region) == nearest:
			choice.Backends = append(choice.Backends, c.Backend)
		case c.Readiness != Gone:
			choice.Draining = append(choice.Draining, c.Backend)
		}
	}
	for _, list := range []*[]maps.Backend{&choice.Backends, &choice.Draining} {
		slices.SortFunc(*list, compareBackends)
		*list = slices.Compact(*list)
	}
	return choice
}

func compareBackends(a, b maps.Backend) int {
	return cmp.Or(
		cmp.Compare(a.Network, b.Network),
		cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Machine, b.Machine),
		cmp.Compare(a.Port, b.Port),
	)
}
