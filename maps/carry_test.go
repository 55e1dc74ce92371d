package maps_test

import (
	"testing"

	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// A newer build's larger tables take over what the running ones hold, whichever of them
// were made again: then a Sync has only ports and Machines left to write, and no flow
// loses its backend.
func TestCarry(t *testing.T) {
	t.Parallel()
	large := sizes{}
	for name, entries := range small {
		large[name] = 2 * entries
	}
	for name, share := range map[string]func(running, fresh *bpf.RouterMaps){
		"all but the flows made again": func(_, _ *bpf.RouterMaps) {},
		"services made again": func(running, fresh *bpf.RouterMaps) {
			fresh.Backends, fresh.BackendLoad, fresh.Maglev, fresh.Quotas = running.Backends, running.BackendLoad, running.Maglev, running.Quotas
		},
		"backends made again": func(running, fresh *bpf.RouterMaps) {
			fresh.Services, fresh.ServiceRanges, fresh.Maglev, fresh.Vips = running.Services, running.ServiceRanges, running.Maglev, running.Vips
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			running := newKernel(t, small)
			tables := running.open()
			// A history: the indices are not those of a first Sync.
			running.settle(t, tables, otherTown())
			running.settle(t, tables, town())
			index := running.elements(backendAt(red, 1, 8080))[0]
			running.setLive(index, 5)

			fresh := newKernel(t, large)
			mixed := *fresh.RouterMaps
			mixed.Flows = running.Flows
			share(running.RouterMaps, &mixed)
			k := &kernel{RouterMaps: &mixed, t: t, now: running.now, length: running.length}
			must(t, sixpnmaps.Carry(running.RouterMaps, k.RouterMaps))

			if got, want := k.backends()[index], running.backends()[index]; got != want {
				t.Errorf("backend %d is %+v, was %+v", index, got, want)
			}
			if got := k.load(index); got.Live != 5 || got.Total != 9 {
				t.Errorf("the load of backend %d is %+v, want 5 live of 9", index, got)
			}
			changes := sync(t, k.open(), town())
			for _, table := range []string{bpf.RouterMapBackends, bpf.RouterMapServices, bpf.RouterMapServiceRanges, bpf.RouterMapMaglev, bpf.RouterMapVips, bpf.RouterMapQuotas} {
				if changes.Tables[table] != 0 {
					t.Errorf("%d elements of table %s were written, want none", changes.Tables[table], table)
				}
			}
			compare(t, k.view(), k.expect(town()), "carried")
		})
	}
}

// A flow table that begins anew has no flows, and so there is nothing to count.
func TestCarryWithoutFlows(t *testing.T) {
	t.Parallel()
	running := newKernel(t, small)
	running.settle(t, running.open(), town())
	index := running.elements(backendAt(red, 1, 8080))[0]
	running.setLive(index, 5)
	fresh := newKernel(t, small)
	must(t, sixpnmaps.Carry(running.RouterMaps, fresh.RouterMaps))
	if got := fresh.load(index); got.Live != 0 {
		t.Errorf("%d flows count in a table that has none", got.Live)
	}
	if got, want := fresh.backends()[index], running.backends()[index]; got != want {
		t.Errorf("backend %d is %+v, was %+v", index, got, want)
	}
}
