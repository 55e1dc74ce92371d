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

	clientv3 "go.etcd.io/etcd/client/v3"
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
// host of it keeps. The host's own Machines stay the same. Of the sizes in fed no store
// has all: their records are made when they are asked for.
func measureGrowth(ctx context.Context, sizes, fed []int, repeats int, progress func(string)) (results []Result, err error) {
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
	add := func(hosts int, look func() (grown, error)) error {
		progress(fmt.Sprintf("growth to %d hosts", hosts))
		g, err := look()
		if err != nil {
			return fmt.Errorf("%d hosts: %w", hosts, err)
		}
		if err := g.measureEngine(ctx, filepath.Join(dir, fmt.Sprint(hosts))); err != nil {
			return fmt.Errorf("engine with %d peers: %w", hosts-1, err)
		}
		all = append(all, g)
		return nil
	}
	for _, hosts := range sizes {
		if err := add(hosts, func() (grown, error) { return s.lookWritten(ctx, hosts, repeats) }); err != nil {
			return nil, err
		}
	}
	for _, hosts := range fed {
		if err := add(hosts, func() (grown, error) { return s.lookFed(ctx, hosts, dir, repeats) }); err != nil {
			return nil, err
		}
	}
	return growthResults(all), nil
}

// growthResults has a line for every size, and what each host of the fleet costs one.
// What of the whole store was not looked at is compared with the smallest fleet.
func growthResults(all []grown) (results []Result) {
	add := func(name, unit, against string, values, baselines []float64) {
		results = append(results, newResult(name, unit, against, values, baselines))
	}
	one := func(name, unit, against string, value, baseline float64) {
		add(name, unit, against, []float64{value}, []float64{baseline})
	}
	small, large, written := all[0], all[len(all)-1], all[0]
	smallest := fmt.Sprintf("%d hosts", small.hosts)
	for _, g := range all {
		size := fmt.Sprintf("_%d", g.hosts)
		if g.whole > 0 {
			one("fleet.state"+size, "kB", "all of the store", g.state/1e3, g.whole/1e3)
			add("fleet.compile"+size, "µs of CPU", "all of the store", g.compile, g.compileWhole)
			written = g
		} else {
			one("fleet.state"+size, "kB", smallest, g.state/1e3, small.state/1e3)
			add("fleet.compile"+size, "µs of CPU", smallest, g.compile, small.compile)
		}
		one("fleet.entries"+size, "entries", smallest, g.entries, small.entries)
		one("fleet.engine"+size, "kB", "no peers", g.engine/1e3, g.noPeers/1e3)
	}
	if more := float64(written.hosts - small.hosts); more > 0 {
		a := func(from, to float64, g grown) float64 { return (to - from) / float64(g.hosts-small.hosts) }
		one("fleet.state_a_host", "bytes", "all of the store", a(small.state, large.state, large), a(small.whole, written.whole, written))
		one("fleet.engine_a_host", "bytes", "its whole, no peers", a(small.engine, large.engine, large), large.noPeers)
	}
	return results
}

// lookWritten has a fleet written into the store, and opens that as the first host does,
// and with everything.
func (s *simulation) lookWritten(ctx context.Context, hosts, repeats int) (g grown, err error) {
	if err := s.grow(ctx, hosts); err != nil {
		return g, fmt.Errorf("write them: %w", err)
	}
	g.hosts = hosts
	var partial, whole *state.Store
	if g.state, partial, err = s.open(ctx, s.embedded.Client(), true, copiesOfPart); err != nil {
		return g, err
	}
	if g.whole, whole, err = s.open(ctx, s.embedded.Client(), false, max(1, copiesOfWhole/hosts)); err != nil {
		return g, err
	}
	if err := s.check(whole.Snapshot()); err != nil {
		return g, err
	}
	if g.entries, g.compile, err = s.compile(partial.Snapshot(), repeats); err != nil {
		return g, err
	}
	all := 0.0
	if all, g.compileWhole, err = s.compile(whole.Snapshot(), repeats); err == nil && all != g.entries {
		err = fmt.Errorf("the tables would have %v entries by what concerns the host, and %v by all of the store", g.entries, all)
	}
	return g, err
}

// lookFed opens what is fed to a host of a fleet.
func (s *simulation) lookFed(ctx context.Context, hosts int, dir string, repeats int) (g grown, err error) {
	f, err := newFeed(ctx, s, hosts, dir)
	if err != nil {
		return g, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	g.hosts = hosts
	var partial *state.Store
	if g.state, partial, err = s.open(ctx, f.client, true, copiesOfPart); err != nil {
		return g, err
	}
	snapshot := partial.Snapshot()
	if len(snapshot.Hosts) != hosts || len(snapshot.HostMachines(s.first)) != machinesOfHost || len(snapshot.Unreadable) > 0 {
		return g, fmt.Errorf("the host knows %d hosts and %d Machines of its own, and cannot read %d records: expected %d, %d and 0",
			len(snapshot.Hosts), len(snapshot.HostMachines(s.first)), len(snapshot.Unreadable), hosts, machinesOfHost)
	}
	g.entries, g.compile, err = s.compile(snapshot, repeats)
	return g, err
}

// compile says how many entries the tables of the first host would have, and how many µs
// of processor time it takes to say which.
func (s *simulation) compile(snapshot *state.Snapshot, repeats int) (entries float64, took []float64, err error) {
	local := s.local(snapshot)
	for range repeats {
		var want maps.Want
		one, err := threadTime(func() { want = reconcile.Compile(snapshot, s.first, local, reconcile.DefaultSettings) })
		if err != nil {
			return 0, nil, err
		}
		entries, took = float64(entriesOf(want)), append(took, one.Seconds()*1e6)
	}
	return entries, took, nil
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

// open opens a simulated fleet's store so many times, as the first host does or with
// everything, and says what one takes of the heap.
func (s *simulation) open(ctx context.Context, client *clientv3.Client, partly bool, copies int) (bytes float64, one *state.Store, err error) {
	before, err := heapAtRest(ctx)
	if err != nil {
		return 0, nil, err
	}
	stores := make([]*state.Store, copies)
	for i := range stores {
		c := state.StoreConfig{Client: client, Log: quiet, Host: s.first, Partial: partly}
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
