package reconcile_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// Farther backends stand by exactly where a service has a limit.
func TestSpill(t *testing.T) {
	t.Parallel()
	distance := func(region string) int {
		if region == "ams" {
			return 0
		}
		return 1
	}
	at := func(machine sixpn.Machine) maps.Backend {
		return maps.Backend{Network: red, Host: here, Machine: machine, Port: 8080}
	}
	near, far := []maps.Backend{at(1), at(2)}, []maps.Backend{at(3)}
	for name, c := range map[string]struct {
		limits   state.Concurrency
		farther  [][]maps.Backend
		draining []maps.Backend
	}{
		"no limits":  {state.Concurrency{}, nil, far},
		"soft limit": {state.Concurrency{SoftLimit: 1}, [][]maps.Backend{far}, nil},
		"hard limit": {state.Concurrency{HardLimit: 1}, [][]maps.Backend{far}, nil},
	} {
		w := newWorld()
		w.app("web", red)
		w.vip("web", red, 3)
		service := tcp(80, 8080)
		service.Concurrency = c.limits
		for number := sixpn.Machine(1); number <= 3; number++ {
			id := w.machine("web", number, service)
			if number == 3 {
				w.change(id, func(m *state.Machine) { m.Region = "nrt" })
			}
		}
		want := reconcile.Compile(&w.snapshot, here, w.local, reconcile.Settings{Rules: flycast.Rules{Distance: distance}})
		got := want.Services[0]
		if d := cmp.Diff([]any{near, c.farther, c.draining}, []any{got.Backends, got.Farther, got.Draining}); d != "" {
			t.Errorf("%s: who takes flows, who stands by and who drains differs (- wanted, + got):\n%s", name, d)
		}
	}
}

// The limits of a host's backends are there whoever uses them, and no other host's are.
func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.app("web", red)
	w.app("free", red)
	w.vip("web", red, 3)
	w.vip("web", blue, 4)
	w.vip("free", red, 5)
	limited := tcp(80, 8080)
	limited.Concurrency = state.Concurrency{SoftLimit: 5, HardLimit: 9}
	w.machine("web", 1, limited)
	w.change(w.machine("web", 2, limited), func(m *state.Machine) { m.Host = here + 1 })
	w.machine("free", 3, tcp(80, 8080))
	seat := func(network sixpn.Network, number uint32) maps.Seat {
		return maps.Seat{
			VIP: maps.VIP{Network: network, Number: number}, Protocol: maps.ProtocolTCP, First: 80,
			Backend: maps.Backend{Network: red, Host: here, Machine: 1, Port: 8080},
		}
	}
	want := map[maps.Seat]maps.Limits{seat(red, 3): {Soft: 5, Hard: 9}, seat(blue, 4): {Soft: 5, Hard: 9}}
	if d := cmp.Diff(want, reconcile.Limits(&w.snapshot, here)); d != "" {
		t.Errorf("the limits differ (- wanted, + got):\n%s", d)
	}
	for _, shared := range []bool{false, true} {
		got := reconcile.Compile(&w.snapshot, here, w.local, reconcile.Settings{Shared: shared})
		for _, s := range got.Services {
			if marked := s.Flags&maps.Shared != 0; marked != (shared && s.HardLimit != 0) {
				t.Errorf("shared is %v: service %d with hard limit %d is marked: %v", shared, s.Number, s.HardLimit, marked)
			}
		}
	}
}

func TestLoopRecompiles(t *testing.T) {
	t.Parallel()
	f := newTables(fine)
	loop := start(t, reconcile.Config{Store: newStore(newWorld()), Tables: f})
	next(t, f)
	loop.Recompile()
	next(t, f)
}
