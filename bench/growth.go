package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// grown is what one host has and does in a fleet of some size.
type grown struct {
	hosts           int
	state, whole    float64   // bytes that it keeps of the store: what concerns it, and everything
	entries         float64   // of the kernel's tables that it wants
	compile         []float64 // µs of processor time to say so
	compileWhole    []float64
	engine, noPeers float64 // bytes of the mesh's engine process with a peer for every other host, and without
}

// measureGrowth writes a larger and larger fleet into a real store, and looks at what one
// host of it keeps. The host's own Machines stay the same.
func measureGrowth(ctx context.Context, sizes []int, repeats int, progress func(string)) (results []Result, err error) {
	dir, err := os.MkdirTemp("", "sixpn-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := newSimulation(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.embedded.Close()) }()
	var all []grown
	for _, hosts := range sizes {
		progress(fmt.Sprintf("growth to %d hosts", hosts))
		if err := s.grow(ctx, hosts); err != nil {
			return nil, fmt.Errorf("write %d hosts: %w", hosts, err)
		}
		g, err := s.look(ctx, dir, repeats)
		if err != nil {
			return nil, fmt.Errorf("%d hosts: %w", hosts, err)
		}
		if err := g.measureEngine(ctx, filepath.Join(dir, fmt.Sprint(hosts))); err != nil {
			return nil, fmt.Errorf("engine with %d peers: %w", hosts-1, err)
		}
		all = append(all, g)
	}
	return growthResults(all), nil
}

// growthResults has a line for every size, and what each host of the fleet costs one.
func growthResults(all []grown) (results []Result) {
	one := func(name, unit, against string, value, baseline float64) {
		results = append(results, newResult(name, unit, against, []float64{value}, []float64{baseline}))
	}
	for _, g := range all {
		size := fmt.Sprintf("_%d", g.hosts)
		one("fleet.state"+size, "kB", "all of the store", g.state/1e3, g.whole/1e3)
		one("fleet.entries"+size, "entries", fmt.Sprintf("%d hosts", all[0].hosts), g.entries, all[0].entries)
		results = append(results, newResult("fleet.compile"+size, "µs of CPU", "all of the store", g.compile, g.compileWhole))
		one("fleet.engine"+size, "kB", "no peers", g.engine/1e3, g.noPeers/1e3)
	}
	small, large := all[0], all[len(all)-1]
	if more := float64(large.hosts - small.hosts); more > 0 {
		one("fleet.state_a_host", "bytes", "all of the store", (large.state-small.state)/more, (large.whole-small.whole)/more)
		one("fleet.engine_a_host", "bytes", "its whole, no peers", (large.engine-small.engine)/more, large.noPeers)
	}
	return results
}

// look opens the store as the first host does, and with everything.
func (s *simulation) look(ctx context.Context, dir string, repeats int) (g grown, err error) {
	g.hosts = s.hosts
	var partial, whole *state.Store
	if g.state, partial, err = s.open(ctx, true, copiesOfPart); err != nil {
		return g, err
	}
	if g.whole, whole, err = s.open(ctx, false, max(1, copiesOfWhole/s.hosts)); err != nil {
		return g, err
	}
	if err := s.check(whole.Snapshot()); err != nil {
		return g, err
	}
	local := s.local(whole.Snapshot())
	g.entries = float64(entriesOf(reconcile.Compile(partial.Snapshot(), s.first, local, reconcile.DefaultSettings)))
	if all := float64(entriesOf(reconcile.Compile(whole.Snapshot(), s.first, local, reconcile.DefaultSettings))); all != g.entries {
		return g, fmt.Errorf("the tables would have %v entries by what concerns the host, and %v by all of the store", g.entries, all)
	}
	for range repeats {
		for store, times := range map[*state.Store]*[]float64{partial: &g.compile, whole: &g.compileWhole} {
			snapshot := store.Snapshot()
			took, err := threadTime(func() { reconcile.Compile(snapshot, s.first, local, reconcile.DefaultSettings) })
			if err != nil {
				return g, err
			}
			*times = append(*times, took.Seconds()*1e6)
		}
	}
	return g, nil
}

// local is a port for every Machine of the first host.
func (s *simulation) local(snapshot *state.Snapshot) reconcile.Local {
	local := reconcile.Local{
		HostPort: reconcile.HostPort{Ifindex: 2, MTU: mtu}, Mesh: reconcile.MeshPort{Ifindex: 3, MTU: mtu},
	}
	for i, m := range snapshot.HostMachines(s.first) {
		local.Ports = append(local.Ports, reconcile.Port{
			MachineID: m.ID, Ifindex: uint32(10 + i), Network: m.Network, Host: m.Host, Number: m.Number, MTU: mtu, Peer: true,
		})
	}
	return local
}

// entriesOf counts what a host's tables would have, without the regions that spread a
// service, whose size depends on its backends alone.
func entriesOf(w maps.Want) int {
	backends := map[maps.Backend]bool{}
	for _, service := range w.Services {
		for _, b := range service.All() {
			backends[b] = true
		}
	}
	return len(w.Ports) + len(w.Machines) + len(w.VIPs) + len(w.Services) + len(w.Allocations) + len(w.Quotas) + len(backends)
}

// How many stores are opened to weigh one of them: the less there is in it, the more, for
// the etcd of the simulation is in this process too, and its buffers come and go. For all
// of the store it is this many hosts' worth.
const (
	copiesOfPart  = 20
	copiesOfWhole = 200
)

// open opens the simulated fleet's store so many times, as the first host does or with
// everything, and says what one takes of the heap.
func (s *simulation) open(ctx context.Context, partly bool, copies int) (bytes float64, one *state.Store, err error) {
	before, err := heapAtRest(ctx)
	if err != nil {
		return 0, nil, err
	}
	stores := make([]*state.Store, copies)
	for i := range stores {
		c := state.StoreConfig{Client: s.embedded.Client(), Log: quiet, Host: s.first, Partial: partly}
		if stores[i], err = state.OpenStore(ctx, c); err != nil {
			return 0, nil, err
		}
	}
	after, err := heapAtRest(ctx)
	if err != nil {
		return 0, nil, err
	}
	return (after - before) / float64(copies), stores[0], nil
}

const (
	// restInterval is longer than etcd keeps what was written in a buffer.
	restInterval = 250 * time.Millisecond
	// restBytes is what the heap may differ by from one look to the next when nothing is done.
	restBytes = 50e3
)

// heapAtRest is what is in use of the heap, once that stays the same.
func heapAtRest(ctx context.Context) (float64, error) {
	ticker := time.NewTicker(restInterval)
	defer ticker.Stop()
	for last := heapInUse(); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		now := heapInUse()
		if math.Abs(now-last) < restBytes {
			return now, nil
		}
		last = now
	}
}

func heapInUse() float64 {
	for range 2 { // what pools hold is let go of by the second
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// threadTime is the processor time of a call, whatever else the machine does.
func threadTime(call func()) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &before); err != nil {
		return 0, err
	}
	call()
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &after)
	return time.Duration(after.Nano() - before.Nano()), err
}
