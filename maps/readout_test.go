package maps_test

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// What is read out is right before the first Sync of a process, which knows nothing of
// the tables, and after it.
func TestReadOutsOfAdoptedTables(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	want := oneService(backendAt(red, 1, 8080), backendAt(red, 2, 8080))
	addMachine(&want, 5, red, 1)
	addMachine(&want, 6, red, 2)
	sync(t, k.open(), want)
	must(t, k.BackendLoad.Put(uint32(2), bpf.RouterLoad{Live: 3, Total: 9, Generation: 1}))

	tables := k.open()
	type readOut struct {
		Loads []sixpnmaps.BackendLoad
		Ports []sixpnmaps.PortCounts
	}
	read := func() (r readOut) {
		t.Helper()
		var err error
		r.Loads, err = tables.Loads()
		must(t, err)
		r.Ports, err = tables.PortCounters()
		must(t, err)
		return r
	}
	adopted := read()
	sync(t, tables, want)
	known := read()
	if d := cmp.Diff(adopted, known); d != "" {
		t.Errorf("before (-) and after (+) the first Sync:\n%s", d)
	}
	if len(known.Ports) != 2 || len(known.Loads) != 2 || known.Loads[1].Live != 3 || known.Loads[1].Total != 9 {
		t.Errorf("read %+v", known)
	}
}

// Once a Sync has said how far the backends are in use, nothing beyond is read: an
// element that is put there behind its back stays unseen.
func TestLoadsReadNoFurtherThanBackendsAre(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	must(t, k.Backends.Put(uint32(small[bpf.RouterMapBackends]-1), bpf.RouterBackend{Machine: 9, Generation: 1}))
	count := func() int {
		t.Helper()
		loads, err := tables.Loads()
		must(t, err)
		return len(loads)
	}
	if n := count(); n != 1 {
		t.Errorf("before the first Sync %d backends are found, want the one at the end", n)
	}
	must(t, k.Backends.Put(uint32(small[bpf.RouterMapBackends]-1), bpf.RouterBackend{}))
	sync(t, tables, oneService(backendAt(red, 1, 8080)))
	must(t, k.Backends.Put(uint32(small[bpf.RouterMapBackends]-1), bpf.RouterBackend{Machine: 9, Generation: 1}))
	if n := count(); n != 1 {
		t.Errorf("after it %d are found, want the one that it made", n)
	}
}

// The flows of an element's former user are not its new user's.
func TestLoadsOfAnotherGeneration(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	sync(t, tables, oneService(backendAt(red, 1, 8080)))
	must(t, k.BackendLoad.Put(uint32(1), bpf.RouterLoad{Live: 3, Total: 9, Generation: 7}))
	loads, err := tables.Loads()
	must(t, err)
	if len(loads) != 1 || loads[0].Live != 0 || loads[0].Total != 0 {
		t.Errorf("the loads are %+v, want one without flows", loads)
	}
}

func TestUses(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	byTable := func() map[string]uint32 {
		t.Helper()
		uses, err := tables.Uses()
		must(t, err)
		used := map[string]uint32{}
		for _, use := range uses {
			if use.Max == 0 {
				t.Errorf("table %s has no room at all", use.Table)
			}
			used[use.Table] = use.Used
		}
		return used
	}
	if d := cmp.Diff(map[string]uint32{bpf.RouterMapFlows: 0, bpf.RouterMapPortDrops: 0}, byTable()); d != "" {
		t.Errorf("before the first Sync (- expected, + found):\n%s", d)
	}
	want := oneService(backendAt(red, 1, 8080), backendAt(red, 2, 8080))
	addHost(&want, 4)
	addMachine(&want, 5, red, 1)
	want.Quotas = append(want.Quotas, sixpnmaps.Quota{Network: red, Limit: 100})
	want.Allocations = []sixpnmaps.Allocation{{Client: blue, Network: red, Machine: 1, Protocol: sixpnmaps.ProtocolTCP, Port: 8080}}
	sync(t, tables, want)
	must(t, k.Quotas.Put(bpf.RouterMachineKey{Network: uint32(red)}, bpf.RouterQuota{Used: 7, Limit: 100}))
	must(t, k.PortDrops.Put(bpf.RouterPortDropKey{Ifindex: 5, Reason: 1}, make([]uint64, cpus())))
	expected := map[string]uint32{
		bpf.RouterMapPortSlots: 2, bpf.RouterMapPortCounters: 2, bpf.RouterMapMachineSlots: 1, bpf.RouterMapHostPort: 1,
		bpf.RouterMapVips: 1, bpf.RouterMapServices: 1, bpf.RouterMapServiceRanges: 0, bpf.RouterMapMaglev: 15,
		bpf.RouterMapBackends: 2, bpf.RouterMapBackendLoad: 2, bpf.RouterMapQuotas: 2, bpf.RouterMapAllocations: 1,
		bpf.RouterMapFlows: 7, bpf.RouterMapPortDrops: 1,
	}
	if d := cmp.Diff(expected, byTable()); d != "" {
		t.Errorf("uses (- expected, + found):\n%s", d)
	}
}

// What a port and a backend counted last is said once, when they go.
func TestLastCounts(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	var ports []sixpnmaps.PortCounts
	var backends []sixpnmaps.BackendLoad
	tables, err := sixpnmaps.Open(k.RouterMaps, sixpnmaps.Options{
		Grace: grace, Now: func() time.Time { return k.now },
		Maglev:       func([]sixpnmaps.Backend) []uint32 { return make([]uint32, 7) },
		PortRemoved:  func(c sixpnmaps.PortCounts) { ports = append(ports, c) },
		BackendFreed: func(l sixpnmaps.BackendLoad) { backends = append(backends, l) },
	})
	must(t, err)
	want := oneService(backendAt(red, 1, 8080))
	addMachine(&want, 5, red, 1)
	sync(t, tables, want)
	counters := make([]bpf.RouterCounters, cpus())
	counters[0].RxPackets, counters[cpus()-1].RxBytes = 2, 200
	must(t, k.PortCounters.Put(uint32(0), counters))
	must(t, k.BackendLoad.Put(uint32(1), bpf.RouterLoad{Total: 9, Generation: 1}))
	if len(ports)+len(backends) != 0 {
		t.Fatalf("told of %+v and %+v, which are there", ports, backends)
	}
	k.settle(t, tables, sixpnmaps.Want{})
	if len(ports) != 1 || ports[0].Ifindex != 5 || ports[0].Machine != sixpn.Machine(1) || ports[0].RxPackets != 2 || ports[0].RxBytes != 200 {
		t.Errorf("told of ports %+v", ports)
	}
	if len(backends) != 1 || backends[0].Backend != backendAt(red, 1, 8080) || backends[0].Total != 9 {
		t.Errorf("told of backends %+v", backends)
	}
}

// BenchmarkReadOuts reads what a scrape does, of 1,000 Machines with a service each, on
// tables of the real size. "every place" is what it takes without knowing how far the
// tables are in use.
func BenchmarkReadOuts(b *testing.B) {
	k := newKernel(b, sizes{})
	k.length = func(int) int { return 251 }
	var want sixpnmaps.Want
	for machine := range sixpn.Machine(1000) {
		addMachine(&want, 100+uint32(machine), red, machine+1)
		want.VIPs = append(want.VIPs, sixpnmaps.VIP{Network: red, Number: uint32(machine) + 1})
		want.Services = append(want.Services, serviceOf(red, uint32(machine)+1, 80, 80, backendAt(red, machine+1, 8080)))
	}
	known := k.open()
	sync(b, known, want)
	for _, tables := range []struct {
		name string
		*sixpnmaps.Tables
	}{{"known", known}, {"every place", k.open()}} {
		for _, what := range []struct {
			name string
			read func() error
		}{
			{"loads", func() error { _, err := tables.Loads(); return err }},
			{"ports", func() error { _, err := tables.PortCounters(); return err }},
			{"services", func() error { _, err := tables.Services(); return err }},
			{"quotas", func() error { _, err := tables.QuotaUses(); return err }},
			{"uses", func() error { _, err := tables.Uses(); return err }},
		} {
			b.Run(what.name+"/"+tables.name, func(b *testing.B) {
				for b.Loop() {
					must(b, what.read())
				}
			})
		}
	}
}

func cpus() int { return ebpf.MustPossibleCPU() }

// Which Machine gets its packets by XDP is as it was last written, also in tables that
// another process wrote; in tables that are missing, none.
func TestByXDP(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	var want sixpnmaps.Want
	addMachine(&want, 5, red, 1)
	addMachine(&want, 6, red, 2)
	for _, by := range []bool{true, false, true} {
		want.Machines[0].Peer, want.Machines[0].XDP = true, by
		sync(t, k.open(), want)
		tables := k.open()
		if tables.ByXDP(red, 1) != by || tables.ByXDP(red, 2) || tables.ByXDP(red, 3) {
			t.Errorf("by XDP: %t, %t and %t; expected %t and no others", tables.ByXDP(red, 1), tables.ByXDP(red, 2), tables.ByXDP(red, 3), by)
		}
	}
	if sixpnmaps.ByXDP(&bpf.RouterMaps{}, red, 1) {
		t.Error("by XDP, and there are no tables")
	}
}
