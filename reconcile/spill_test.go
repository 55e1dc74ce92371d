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

func TestLoopRecompiles(t *testing.T) {
	t.Parallel()
	f := newTables(fine)
	loop := start(t, reconcile.Config{Store: newStore(newWorld()), Tables: f})
	next(t, f)
	loop.Recompile()
	next(t, f)
}
