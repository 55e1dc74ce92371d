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

func TestRoomFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		live       uint32
		soft, hard uint32
		was        flycast.Room
		want       flycast.Room
	}{
		{"no limits", 1000, 0, 0, flycast.Roomy, flycast.Roomy},
		{"below both", 15, 16, 32, flycast.Roomy, flycast.Roomy},
		{"at its soft limit", 16, 16, 32, flycast.Roomy, flycast.Crowded},
		{"just below it again", 15, 16, 32, flycast.Crowded, flycast.Crowded},
		{"an eighth below it", 13, 16, 32, flycast.Crowded, flycast.Roomy},
		{"at its hard limit", 32, 16, 32, flycast.Crowded, flycast.Full},
		{"just below that again", 29, 16, 32, flycast.Full, flycast.Full},
		{"an eighth below that", 27, 16, 32, flycast.Full, flycast.Crowded},
		{"an eighth below both", 13, 16, 32, flycast.Full, flycast.Roomy},
		{"a hard limit only", 32, 0, 32, flycast.Roomy, flycast.Full},
		{"a soft limit above the hard one", 8, 16, 8, flycast.Roomy, flycast.Full},
		{"limits too small for an eighth", 0, 1, 2, flycast.Full, flycast.Roomy},
	} {
		if got := flycast.RoomFor(c.live, c.soft, c.hard, c.was); got != c.want {
			t.Errorf("%s: room %d, want %d", c.name, got, c.want)
		}
	}
}

// Who takes new flows as regions fill up: Machine 1 and 2 near, 3 farther, 4 farthest.
func TestChooseByRoom(t *testing.T) {
	t.Parallel()
	candidates := []flycast.Candidate{
		{at(1), "ams", flycast.Ready, true}, {at(2), "ams", flycast.Ready, true},
		{at(3), "iad", flycast.Ready, true}, {at(4), "nrt", flycast.Ready, true},
	}
	near := func(region string) int { return map[string]int{"ams": 0, "iad": 1, "nrt": 2}[region] }
	const full, crowded, roomy = flycast.Full, flycast.Crowded, flycast.Roomy
	for _, c := range []struct {
		name  string
		rooms [4]flycast.Room
		takes []maps.Backend
	}{
		{"all have room", [4]flycast.Room{roomy, roomy, roomy, roomy}, []maps.Backend{at(1), at(2)}},
		{"one near is at its soft limit", [4]flycast.Room{crowded, roomy, roomy, roomy}, []maps.Backend{at(1), at(2)}},
		{"one near is at its hard limit", [4]flycast.Room{full, roomy, roomy, roomy}, []maps.Backend{at(1), at(2)}},
		{"all near are at their soft limit", [4]flycast.Room{crowded, crowded, roomy, roomy}, []maps.Backend{at(1), at(2), at(3)}},
		{"all near are at their hard limit", [4]flycast.Room{full, full, roomy, roomy}, []maps.Backend{at(1), at(2), at(3)}},
		{"only the farthest has room", [4]flycast.Room{full, crowded, crowded, roomy}, []maps.Backend{at(1), at(2), at(3), at(4)}},
		{"all are at their soft limit", [4]flycast.Room{crowded, full, crowded, crowded}, []maps.Backend{at(1), at(2)}},
		{"near ones are at their hard limit, the others at their soft one", [4]flycast.Room{full, full, crowded, crowded}, []maps.Backend{at(1), at(2), at(3)}},
		{"all are at their hard limit", [4]flycast.Room{full, full, full, full}, []maps.Backend{at(1), at(2), at(3), at(4)}},
	} {
		room := func(b maps.Backend) flycast.Room { return c.rooms[b.Machine-1] }
		choice := flycast.Choose(candidates, flycast.Rules{Distance: near, Room: room})
		if d := cmp.Diff(c.takes, choice.Backends); d != "" {
			t.Errorf("%s: who takes new flows differs (- wanted, + got):\n%s", c.name, d)
		}
		if len(choice.Backends)+len(choice.Draining) != len(candidates) {
			t.Errorf("%s: %d take flows and %d keep theirs, want %d in all", c.name, len(choice.Backends), len(choice.Draining), len(candidates))
		}
	}
}

// Nobody reads the load where it decides nothing.
func TestChooseAsksForRoomOnlyWhereItDecides(t *testing.T) {
	t.Parallel()
	never := func(b maps.Backend) flycast.Room {
		t.Errorf("was asked for the room of Machine %d", b.Machine)
		return flycast.Roomy
	}
	near := func(region string) int { return map[string]int{"ams": 0, "iad": 1}[region] }
	for _, candidates := range [][]flycast.Candidate{
		nil,
		{{at(1), "ams", flycast.Ready, true}, {at(2), "ams", flycast.Ready, true}},
		{{at(1), "ams", flycast.Ready, true}, {at(2), "iad", flycast.Draining, true}},
		{{at(1), "ams", flycast.Ready, true}, {at(2), "iad", flycast.Ready, false}},
	} {
		flycast.Choose(candidates, flycast.Rules{Distance: near, Room: never})
	}
}
