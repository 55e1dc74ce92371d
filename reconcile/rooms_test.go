package reconcile_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// load is what a kernel would count of one service.
type load struct {
	mu    sync.Mutex
	live  map[sixpn.Machine]uint32
	reads int
}

func (l *load) set(machine sixpn.Machine, live uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live[machine] = live
}

func (l *load) seen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

func (l *load) Services() ([]maps.PlacedService, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	return []maps.PlacedService{{VIP: maps.VIP{Network: red, Number: 3}, Protocol: maps.ProtocolTCP, First: 80, Last: 80, ID: 5}}, nil
}

func (l *load) Loads() ([]maps.BackendLoad, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []maps.BackendLoad
	for machine, live := range l.live {
		b := maps.Backend{Network: red, Host: here, Machine: machine, Port: 8080}
		all = append(all,
			maps.BackendLoad{Backend: b, Service: 5, Live: live},
			maps.BackendLoad{Backend: b, Service: 6, Live: 1000},             // another service's
			maps.BackendLoad{Backend: b, Service: 5, Live: 1000, Gone: true}, // of a run before
		)
	}
	return all, nil
}

// nearAndFar is an app with Machines 1 and 2 near and 3 far.
func nearAndFar(limits state.Concurrency) *world {
	w := newWorld()
	w.app("web", red)
	w.vip("web", red, 3)
	service := tcp(80, 8080)
	service.Concurrency = limits
	for _, number := range []sixpn.Machine{1, 2, 3} {
		id := w.machine("web", number, service)
		if number == 3 {
			w.change(id, func(m *state.Machine) { m.Region = "nrt" })
		}
	}
	return w
}

func byRegion(region string) int {
	if region == "ams" {
		return 0
	}
	return 1
}

// Flows fill and leave the near backends, and nothing else happens: the far one takes
// new flows exactly while the near ones are at their soft limits.
func TestLoopFollowsTheLoad(t *testing.T) {
	t.Parallel()
	counts := &load{live: map[sixpn.Machine]uint32{}}
	f := newTables(fine)
	w := nearAndFar(state.Concurrency{SoftLimit: 16, HardLimit: 32})
	loop := start(t, reconcile.Config{
		Store: newStore(w), Tables: f, Load: counts, Watch: time.Millisecond,
		Settings: reconcile.Settings{Rules: flycast.Rules{Distance: byRegion}},
	})
	for _, p := range w.local.Ports {
		ok(t, loop.SetPort(within(t), p))
	}
	all, near := []sixpn.Machine{1, 2, 3}, []sixpn.Machine{1, 2}
	for _, step := range []struct {
		name string
		live [3]uint32
		want []sixpn.Machine
	}{
		{"none", [3]uint32{0, 0, 0}, near},
		{"one near is at its soft limit", [3]uint32{16, 15, 0}, near},
		{"both are", [3]uint32{16, 16, 0}, all},
		{"one is just below it", [3]uint32{15, 16, 1}, all},
		{"one is an eighth below it", [3]uint32{13, 16, 1}, near},
		{"all three are at it", [3]uint32{16, 16, 16}, near},
		{"the near ones are at their hard limits", [3]uint32{32, 32, 16}, all},
	} {
		for i, live := range step.live {
			counts.set(sixpn.Machine(i+1), live)
		}
		taking := func() (got []sixpn.Machine) {
			for _, b := range f.latest().Services[0].Backends {
				got = append(got, b.Machine)
			}
			return got
		}
		before := counts.seen()
		for deadline := time.Now().Add(patience); counts.seen() < before+3 || !slices.Equal(taking(), step.want); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: Machines %d take new flows, want %d", step.name, taking(), step.want)
			}
			runtime.Gosched()
		}
	}
}

// Without limits, or without a farther backend, nobody reads the load.
func TestLoopReadsNoLoadInVain(t *testing.T) {
	t.Parallel()
	far := nearAndFar(state.Concurrency{})
	near := nearAndFar(state.Concurrency{SoftLimit: 1})
	for id := range near.snapshot.Machines {
		near.change(id, func(m *state.Machine) { m.Region = "ams" })
	}
	for name, w := range map[string]*world{"no limits": far, "all as near": near} {
		counts := &load{live: map[sixpn.Machine]uint32{}}
		f := newTables(fine)
		s := newStore(w)
		loop := start(t, reconcile.Config{
			Store: s, Tables: f, Load: counts, Watch: time.Nanosecond,
			Settings: reconcile.Settings{Rules: flycast.Rules{Distance: byRegion}},
		})
		for _, p := range w.local.Ports {
			ok(t, loop.SetPort(within(t), p))
		}
		for revision := int64(2); revision < 20; revision++ {
			s.publish(w, revision)
			ok(t, loop.Applied(within(t), revision))
		}
		if n := counts.seen(); n != 0 {
			t.Errorf("%s: the load was read %d times", name, n)
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
