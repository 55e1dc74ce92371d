package reconcile_test

import (
	"context"
	"testing"

	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// From a snapshot to the kernel's own tables: what was compiled is there, and doing it
// again, with the same agent or another, writes nothing.
func TestLoopFillsTheKernel(t *testing.T) {
	t.Parallel()
	spec, err := bpf.LoadRouter()
	ok(t, err)
	for name, entries := range map[string]uint32{
		bpf.RouterMapMaglev: 4096, bpf.RouterMapFlows: 1024,
		bpf.RouterMapBackends: 128, bpf.RouterMapBackendLoad: 128,
	} {
		spec.Maps[name].MaxEntries = entries
	}
	var kernel bpf.RouterMaps
	ok(t, spec.LoadAndAssign(&kernel, nil))
	t.Cleanup(func() { ok(t, kernel.Close()) })
	open := func() *maps.Tables {
		opened, err := maps.Open(&kernel, maps.Options{Maglev: flycast.Maglev})
		ok(t, err)
		return opened
	}
	opened := open()

	w := newWorld()
	w.app("web", red)
	w.vip("web", red, 3)
	w.machine("web", 1, tcp(80, 8080))
	second := w.machine("web", 2, tcp(80, 8080))
	s := newStore(w)
	loop := start(t, reconcile.Config{Store: s, Tables: opened})
	for _, p := range w.local.Ports {
		ok(t, loop.SetPort(await.Context(t), p))
	}
	loop.PortsComplete()
	ok(t, loop.Applied(await.Context(t), 1))

	backends := func() (running, gone int) {
		loads, err := opened.Loads()
		ok(t, err)
		for _, load := range loads {
			if load.Gone {
				gone++
			} else {
				running++
			}
		}
		return running, gone
	}
	if running, gone := backends(); running != 2 || gone != 0 {
		t.Errorf("%d backends run and %d are gone, want 2 and 0", running, gone)
	}
	placed, err := opened.Services()
	ok(t, err)
	if len(placed) != 1 || placed[0].First != 80 || placed[0].Region != flycast.RegionLength(2) {
		t.Errorf("the services are %+v", placed)
	}

	want := reconcile.Compile(s.Snapshot(), here, w.local, reconcile.DefaultSettings)
	for name, tables := range map[string]*maps.Tables{"the same agent": opened, "another": open()} {
		changes, err := tables.Sync(context.Background(), want)
		ok(t, err)
		if changes.Writes != 0 {
			t.Errorf("%s did it again with %v", name, changes.Tables)
		}
	}

	for i, step := range []struct {
		state         state.MachineState
		running, gone int
	}{
		{state.Stopping, 2, 0},
		{state.Stopped, 1, 1},
	} {
		stopped := newWorld()
		for id, machine := range w.snapshot.Machines {
			if id == second {
				machine.State = step.state
			}
			stopped.snapshot.Machines[id] = machine
		}
		stopped.snapshot.Apps, stopped.snapshot.VIPs = w.snapshot.Apps, w.snapshot.VIPs
		s.publish(stopped, int64(i+2))
		ok(t, loop.Applied(await.Context(t), int64(i+2)))
		if running, gone := backends(); running != step.running || gone != step.gone {
			t.Errorf("%s: %d backends run and %d are gone, want %d and %d", step.state, running, gone, step.running, step.gone)
		}
		if placed, err = opened.Services(); err != nil || placed[0].Region != flycast.RegionLength(1) || placed[0].Generation != 2 {
			t.Errorf("%s: the services are %+v (%v), want another region", step.state, placed, err)
		}
	}
}
