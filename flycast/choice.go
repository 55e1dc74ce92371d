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

// Room is what a backend can still take, as far as the clients of this host load it.
type Room uint8

// From least to most.
const (
	Full    Room = iota // at its hard limit
	Crowded             // at its soft limit
	Roomy               // below both
)

// RoomFor is what a backend with so many live flows can still take. A limit of 0 is
// none; a soft limit above the hard one counts as that.
//
// was is what it could take when it was last asked. One that was at a limit must be an
// eighth below it to be so no more: the region it is in would otherwise be left and
// taken again with every flow that ends and begins.
func RoomFor(live, soft, hard uint32, was Room) Room {
	at := func(limit uint32, was bool) bool {
		if was {
			limit -= limit / 8
		}
		return limit != 0 && live >= limit
	}
	switch {
	case at(hard, was == Full):
		return Full
	case at(soft, was <= Crowded):
		return Crowded
	}
	return Roomy
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
	// Room is asked only where the answer decides: of ready candidates, when there are
	// farther ones. nil: all have room.
	Room func(backend maps.Backend) Room
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
//
// Near enough are all as far as the nearest distance at which one is below its soft
// limit; if none is, at which one is below its hard limit; if none is, all. Those that
// are nearer stay in, so that what becomes free at them is used at once: the data
// plane prefers whoever is below a soft limit, then whoever is below a hard one.
func Choose(candidates []Candidate, rules Rules) Choice {
	distance := rules.Distance
	if distance == nil {
		distance = func(string) int { return 0 }
	}
	healthy := slices.ContainsFunc(candidates, func(c Candidate) bool { return c.Readiness == Ready && c.Healthy })
	eligible := func(c Candidate) bool { return c.Readiness == Ready && (c.Healthy || !healthy) }
	farthest := reach(slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool { return !eligible(c) }), distance, rules.Room)
	var choice Choice
	for _, c := range candidates {
		switch {
		case eligible(c) && distance(c.Region) <= farthest:
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

// reach is the distance up to which candidates take new flows.
func reach(eligible []Candidate, distance func(region string) int, room func(maps.Backend) Room) int {
	best := map[int]Room{} // by distance: the most that one there can take
	for _, c := range eligible {
		best[distance(c.Region)] = Full
	}
	distances := slices.Sorted(stdmaps.Keys(best))
	if len(distances) == 0 {
		return 0
	}
	if room == nil || len(distances) == 1 {
		return distances[0]
	}
	for _, c := range eligible {
		d := distance(c.Region)
		best[d] = max(best[d], room(c.Backend))
	}
	for _, least := range []Room{Roomy, Crowded} {
		for _, d := range distances {
			if best[d] >= least {
				return d
			}
		}
	}
	return distances[len(distances)-1]
}

func compareBackends(a, b maps.Backend) int {
	return cmp.Or(
		cmp.Compare(a.Network, b.Network),
		cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Machine, b.Machine),
		cmp.Compare(a.Port, b.Port),
	)
}
