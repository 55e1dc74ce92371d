package maps_test

import (
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// drawWant draws a Want out of a small world, so that two of them have much in common:
// the same devices, Machines, addresses and ports, put together differently.
func drawWant(t *rapid.T) sixpnmaps.Want {
	var want sixpnmaps.Want
	devices := rapid.Permutation([]uint32{5, 6, 7, 8, 9, 10, 11, 12}).Draw(t, "devices")
	networks := map[sixpn.Network]bool{}
	var clients []sixpnmaps.Backend
	for _, network := range []sixpn.Network{red, blue} {
		for machine := sixpn.Machine(1); machine <= 3; machine++ {
			clients = append(clients, backendAt(network, machine, 8080))
			if !rapid.Bool().Draw(t, "present") {
				continue
			}
			addMachine(&want, devices[0], network, machine)
			devices = devices[1:]
			networks[network] = true
		}
	}
	if rapid.Bool().Draw(t, "host port") {
		addHost(&want, devices[0])
		devices = devices[1:]
	}
	if rapid.Bool().Draw(t, "mesh") {
		addMesh(&want, devices[0], rapid.SampledFrom([]uint16{1280, 1420}).Draw(t, "mtu"))
	}
	want.Allocations = rapid.SliceOfNDistinct(rapid.SampledFrom([]sixpnmaps.Allocation{
		{Client: red, Network: blue, Machine: 1, Protocol: sixpnmaps.ProtocolTCP, Port: 8080},
		{Client: red, Network: blue, Machine: 1, Protocol: sixpnmaps.ProtocolUDP, Port: 8080},
		{Client: blue, Network: red, Machine: 2, Protocol: sixpnmaps.ProtocolTCP, Port: 8081},
	}), 0, 3, func(a sixpnmaps.Allocation) sixpnmaps.Allocation { return a }).Draw(t, "allocations")
	for _, network := range []sixpn.Network{red, blue} {
		if !networks[network] {
			continue
		}
		want.Quotas = append(want.Quotas, sixpnmaps.Quota{Network: network, Limit: rapid.SampledFrom([]uint32{10, 20}).Draw(t, "limit")})
		for number := uint32(1); number <= 2; number++ {
			if !rapid.Bool().Draw(t, "address") {
				continue
			}
			want.VIPs = append(want.VIPs, sixpnmaps.VIP{Network: network, Number: number})
			next := uint16(1)
			for range rapid.IntRange(0, 3).Draw(t, "services") {
				first := next + rapid.Uint16Range(0, 3).Draw(t, "gap")
				last := first + rapid.Uint16Range(0, 9).Draw(t, "more")
				next = last + 1
				service := serviceOf(network, number, first, last)
				service.Backends = rapid.SliceOfNDistinct(rapid.SampledFrom(clients), 0, 3, func(b sixpnmaps.Backend) sixpnmaps.Backend { return b }).Draw(t, "backends")
				for len(service.Backends) > 0 && len(service.Farther) < sixpnmaps.MaxRegions-1 && rapid.Bool().Draw(t, "farther") {
					last := len(service.Backends) - 1
					service.Farther = append(service.Farther, service.Backends[last:])
					service.Backends = service.Backends[:last:last]
				}
				service.SoftLimit = rapid.SampledFrom([]uint32{0, 5}).Draw(t, "soft limit")
				service.Flags = rapid.SampledFrom([]uint8{0, sixpnmaps.CrossNetwork}).Draw(t, "flags")
				want.Services = append(want.Services, service)
			}
		}
	}
	return want
}

// Whatever is wanted one after the other, whenever a Sync is cut short and whenever the
// agent dies: the wall stays closed, and in the end the tables hold what is wanted.
func TestModel(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	interrupted := errors.New("interrupted")
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			want := drawWant(t)
			before, after := k.glance(), k.expect(want)
			stop := rapid.IntRange(1, 40).Draw(t, "stop")
			writes := 0
			k.after = func(string) error {
				writes++
				k.checkWall(t, before, after)
				if writes == stop {
					return interrupted
				}
				return nil
			}
			_, err := tables.Sync(context.Background(), want)
			k.after = nil
			if err != nil && !errors.Is(err, interrupted) {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "die") {
				tables = k.open()
			}
		}
		want := drawWant(t)
		k.settle(t, tables, want)
		compare(t, k.view(), k.expect(want), "in the end")
	})
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint16Range(1, 65535).Draw(t, "first")
		last := rapid.Uint16Range(first, 65535).Draw(t, "last")
		got := sixpnmaps.Prefixes(first, last)
		want := blocks(uint32(first), uint32(last))
		if len(got) != len(want) || len(got) > 30 {
			t.Fatalf("%d to %d: %d blocks, want %d", first, last, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%d to %d: block %d is %v, want %v", first, last, i, got[i], want[i])
			}
		}
	})
}

// Regions are never given out twice, and what was given back can be had again.
func TestHoles(t *testing.T) {
	t.Parallel()
	const size = 64
	rapid.Check(t, func(t *rapid.T) {
		owner := [size]int{} // 0: free
		var taken [][2]uint32
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			if len(taken) > 0 && rapid.Bool().Draw(t, "give back") {
				n := rapid.IntRange(0, len(taken)-1).Draw(t, "which")
				for at := taken[n][0]; at < taken[n][0]+taken[n][1]; at++ {
					owner[at] = 0
				}
				taken = append(taken[:n], taken[n+1:]...)
				continue
			}
			length := rapid.Uint32Range(1, 20).Draw(t, "length")
			expected := firstFit(owner[:], length)
			offset, ok := sixpnmaps.TakeRegion(size, taken, length)
			if ok != (expected >= 0) || ok && int(offset) != expected {
				t.Fatalf("%d elements: got %d %v, the first fit is %d", length, offset, ok, expected)
			}
			if ok {
				for at := offset; at < offset+length; at++ {
					owner[at] = i + 1
				}
				taken = append(taken, [2]uint32{offset, length})
			}
		}
	})
}

func firstFit(owner []int, length uint32) int {
	run := uint32(0)
	for i, o := range owner {
		if run++; o != 0 {
			run = 0
		}
		if run == length {
			return i + 1 - int(length)
		}
	}
	return -1
}

// A range that is cut in two keeps its id, hence its backends and their flows.
func TestServiceKeepsItsNumber(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	one, two := backendAt(red, 1, 8080), backendAt(red, 2, 8080)
	vips := []sixpnmaps.VIP{{Network: red, Number: 3}}
	wanted := func(services ...sixpnmaps.Service) sixpnmaps.Want {
		return sixpnmaps.Want{VIPs: vips, Services: services}
	}
	id := func(port uint16) uint32 {
		t.Helper()
		placed, err := tables.Services()
		must(t, err)
		for _, service := range placed {
			if service.First <= port && port <= service.Last {
				return service.ID
			}
		}
		t.Fatalf("no service has port %d: %+v", port, placed)
		return 0
	}

	k.settle(t, tables, wanted(serviceOf(red, 3, 8000, 8010, one), serviceOf(red, 3, 80, 80, one)))
	first, other := id(8000), id(80)
	if first == other {
		t.Fatalf("two services have the id %d", first)
	}
	for _, step := range []struct {
		name string
		want sixpnmaps.Want
	}{
		{"cut in three", wanted(serviceOf(red, 3, 8000, 8004, one), serviceOf(red, 3, 8005, 8005, one, two), serviceOf(red, 3, 8006, 8010, one))},
		{"joined", wanted(serviceOf(red, 3, 8000, 8010, one))},
		{"longer", wanted(serviceOf(red, 3, 7990, 8020, one))},
	} {
		sync(t, tables, step.want)
		for _, port := range []uint16{8000, 8005, 8010} {
			if got := id(port); got != first {
				t.Errorf("%s: port %d has the id %d, want %d", step.name, port, got, first)
			}
		}
		loads, err := tables.Loads()
		must(t, err)
		for _, load := range loads {
			if load.Service == first && load.Backend == one && load.Gone {
				t.Errorf("%s: the flows of %+v are lost", step.name, load.Backend)
			}
		}
	}

	// Numbers are not given out again, not even by another agent.
	k.settle(t, tables, sixpnmaps.Want{})
	tables = k.open()
	sync(t, tables, wanted(serviceOf(red, 3, 81, 81, one)))
	if got := id(81); got <= max(first, other) {
		t.Errorf("a new service has the id %d, which was another's", got)
	}
	var action = bpf.RouterServiceActionSERVICE_BALANCE
	if placed, _ := tables.Services(); placed[0].Action != action || placed[0].Region == 0 {
		t.Errorf("the service is %+v", placed[0])
	}
}
