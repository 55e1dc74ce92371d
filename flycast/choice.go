package flycast

import (
	"cmp"
	stdmaps "maps"
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
	// Distance ranks a candidate's region as seen from this host, lower is nearer.
	// nil: all regions are as near.
	Distance func(region string) int
	// Spill has farther candidates take the flows for which the nearer are too full,
	// where backends have limits. Otherwise only the nearest that are ready take any.
	Spill bool
}

// Choice is the outcome: who takes new flows, and who keeps those it has. Each list is
// ordered by network, host, machine and port, without doubles.
type Choice struct {
	Backends []maps.Backend   // the nearest
	Farther  [][]maps.Backend // by distance; the last are all that are as far or farther
	Draining []maps.Backend
}

// Choose picks the backends of a service. A candidate that is ready, but unhealthy or
// not near enough, keeps the flows it has, as one that drains does. When all that are
// ready are unhealthy the checks are believed less than the Machines: all are used.
//
// With Rules.Spill the data plane goes by distance for each new flow: to the nearest that
// is below its soft limit, and if none is, to the nearest that is below its hard limit.
func Choose(candidates []Candidate, rules Rules) Choice {
	distance := rules.Distance
	if distance == nil {
		distance = func(string) int { return 0 }
	}
	healthy := slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Readiness == Ready && c.Healthy })
	groups := map[int][]maps.Backend{} // by distance
	for _, c := range candidates {
		if c.Readiness == Ready && (c.Healthy || !healthy) {
			groups[distance(c.Region)] = append(groups[distance(c.Region)], c.Backend)
		}
	}
	var choice Choice
	for i, d := range slices.Sorted(stdmaps.Keys(groups)) {
		switch {
		case i == 0:
			choice.Backends = groups[d]
		case !rules.Spill:
			choice.Draining = append(choice.Draining, groups[d]...)
		case i < maps.MaxRegions:
			choice.Farther = append(choice.Farther, groups[d])
		default:
			last := &choice.Farther[len(choice.Farther)-1]
			*last = append(*last, groups[d]...)
		}
	}
	for _, c := range candidates {
		if c.Readiness == Draining || c.Readiness == Ready && healthy && !c.Healthy {
			choice.Draining = append(choice.Draining, c.Backend)
		}
	}
	choice.Backends, choice.Draining = sorted(choice.Backends), sorted(choice.Draining)
	for i := range choice.Farther {
		choice.Farther[i] = sorted(choice.Farther[i])
	}
	return choice
}

func sorted(backends []maps.Backend) []maps.Backend {
	slices.SortFunc(backends, compareBackends)
	return slices.Compact(backends)
}

func compareBackends(a, b maps.Backend) int {
	return cmp.Or(
		cmp.Compare(a.Network, b.Network),
		cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Machine, b.Machine),
		cmp.Compare(a.Port, b.Port),
	)
}
