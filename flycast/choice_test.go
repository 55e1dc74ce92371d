package flycast_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

func at(machine sixpn.Machine) maps.Backend {
	return maps.Backend{Network: 1, Host: 3, Machine: machine, Port: 8080}
}

func TestMachineReadiness(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state, desired state.MachineState
		want           flycast.Readiness
	}{
		{state.Created, state.Started, flycast.Gone},
		{state.Starting, state.Started, flycast.Gone},
		{state.Started, state.Started, flycast.Ready},
		{state.Started, state.Stopped, flycast.Draining},
		{state.Started, state.Destroyed, flycast.Draining},
		{state.Stopping, state.Stopped, flycast.Draining},
		{state.Stopping, state.Started, flycast.Draining},
		{state.Started, state.Suspended, flycast.Draining},
		{state.Suspending, state.Suspended, flycast.Draining},
		{state.Suspended, state.Suspended, flycast.Draining},
		{state.Suspended, state.Started, flycast.Draining},
		{state.Stopped, state.Started, flycast.Gone},
		{state.Failed, state.Started, flycast.Gone},
		{state.Destroying, state.Destroyed, flycast.Gone},
		{state.Destroyed, state.Destroyed, flycast.Gone},
	} {
		if got := flycast.MachineReadiness(state.Machine{State: c.state, Desired: c.desired}); got != c.want {
			t.Errorf("%s, wanted %s: readiness %d, want %d", c.state, c.desired, got, c.want)
		}
	}
	cordoned := state.Machine{State: state.Started, Desired: state.Started, Cordoned: true}
	if got := flycast.MachineReadiness(cordoned); got != flycast.Draining {
		t.Errorf("cordoned: readiness %d, want %d", got, flycast.Draining)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	near := func(region string) int { return map[string]int{"ams": 0, "iad": 80, "nrt": 240}[region] }
	for _, c := range []struct {
		name       string
		candidates []flycast.Candidate
		rules      flycast.Rules
		want       flycast.Choice
	}{
		{"none", nil, flycast.Rules{}, flycast.Choice{}},
		{"ready", []flycast.Candidate{{at(2), "ams", flycast.Ready, true}, {at(1), "nrt", flycast.Ready, true}}, flycast.Rules{},
			flycast.Choice{Backends: []maps.Backend{at(1), at(2)}}},
		{"twice the same", []flycast.Candidate{{at(1), "ams", flycast.Ready, true}, {at(1), "ams", flycast.Ready, true}}, flycast.Rules{},
			flycast.Choice{Backends: []maps.Backend{at(1)}}},
		{"draining", []flycast.Candidate{{at(1), "ams", flycast.Draining, true}, {at(2), "ams", flycast.Ready, true}}, flycast.Rules{},
			flycast.Choice{Backends: []maps.Backend{at(2)}, Draining: []maps.Backend{at(1)}}},
		{"gone", []flycast.Candidate{{at(1), "ams", flycast.Gone, true}, {at(2), "ams", flycast.Ready, true}}, flycast.Rules{},
			flycast.Choice{Backends: []maps.Backend{at(2)}}},
		{"the nearest", []flycast.Candidate{{at(1), "nrt", flycast.Ready, true}, {at(2), "iad", flycast.Ready, true}}, flycast.Rules{Distance: near},
			flycast.Choice{Backends: []maps.Backend{at(2)}, Draining: []maps.Backend{at(1)}}},
		{"the nearest that is ready", []flycast.Candidate{{at(1), "nrt", flycast.Ready, true}, {at(2), "ams", flycast.Draining, true}}, flycast.Rules{Distance: near},
			flycast.Choice{Backends: []maps.Backend{at(1)}, Draining: []maps.Backend{at(2)}}},
		{"an unhealthy one", []flycast.Candidate{{at(1), "ams", flycast.Ready, false}, {at(2), "ams", flycast.Ready, true}}, flycast.Rules{},
			flycast.Choice{Backends: []maps.Backend{at(2)}, Draining: []maps.Backend{at(1)}}},
		{"all unhealthy", []flycast.Candidate{{at(1), "ams", flycast.Ready, false}, {at(2), "ams", flycast.Ready, false}}, flycast.Rules{},
			flycast.Choice{Backends: []maps.Backend{at(1), at(2)}}},
		{"all that are ready unhealthy", []flycast.Candidate{{at(1), "ams", flycast.Ready, false}, {at(2), "ams", flycast.Draining, true}}, flycast.Rules{},
			flycast.Choice{Backends: []maps.Backend{at(1)}, Draining: []maps.Backend{at(2)}}},
		{"the nearest that is healthy", []flycast.Candidate{{at(1), "ams", flycast.Ready, false}, {at(2), "nrt", flycast.Ready, true}}, flycast.Rules{Distance: near},
			flycast.Choice{Backends: []maps.Backend{at(2)}, Draining: []maps.Backend{at(1)}}},
		{"the nearest of all unhealthy", []flycast.Candidate{{at(1), "ams", flycast.Ready, false}, {at(2), "nrt", flycast.Ready, false}}, flycast.Rules{Distance: near},
			flycast.Choice{Backends: []maps.Backend{at(1)}, Draining: []maps.Backend{at(2)}}},
	} {
		if d := cmp.Diff(c.want, flycast.Choose(c.candidates, c.rules)); d != "" {
			t.Errorf("%s: the choice differs (- wanted, + got):\n%s", c.name, d)
		}
	}
}

// With spill-over every distance takes new flows, the farthest together.
func TestChooseSpills(t *testing.T) {
	t.Parallel()
	ready := func(machine sixpn.Machine, region string) flycast.Candidate {
		return flycast.Candidate{Backend: at(machine), Region: region, Readiness: flycast.Ready, Healthy: true}
	}
	near := func(region string) int { return int(region[0] - 'a') }
	list := func(machines ...sixpn.Machine) (backends []maps.Backend) {
		for _, m := range machines {
			backends = append(backends, at(m))
		}
		return backends
	}
	for _, c := range []struct {
		name       string
		candidates []flycast.Candidate
		want       flycast.Choice
	}{
		{"one distance", []flycast.Candidate{ready(2, "a"), ready(1, "a")}, flycast.Choice{Backends: list(1, 2)}},
		{"two", []flycast.Candidate{ready(1, "b"), ready(3, "a"), ready(2, "b")},
			flycast.Choice{Backends: list(3), Farther: [][]maps.Backend{list(1, 2)}}},
		{"a farther one that drains", []flycast.Candidate{ready(1, "a"), {Backend: at(2), Region: "b", Readiness: flycast.Draining, Healthy: true}},
			flycast.Choice{Backends: list(1), Draining: list(2)}},
		{"a nearer one that is unhealthy", []flycast.Candidate{{Backend: at(1), Region: "a", Readiness: flycast.Ready}, ready(2, "b")},
			flycast.Choice{Backends: list(2), Draining: list(1)}},
		{"six distances", []flycast.Candidate{ready(6, "f"), ready(5, "e"), ready(4, "d"), ready(3, "c"), ready(2, "b"), ready(1, "a")},
			flycast.Choice{Backends: list(1), Farther: [][]maps.Backend{list(2), list(3), list(4, 5, 6)}}},
	} {
		if d := cmp.Diff(c.want, flycast.Choose(c.candidates, flycast.Rules{Distance: near, Spill: true})); d != "" {
			t.Errorf("%s: the choice differs (- wanted, + got):\n%s", c.name, d)
		}
	}
}
