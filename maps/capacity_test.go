package maps_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// A table that is full is named, with what found no room; all else is applied, and
// what was there stays.
func TestCapacity(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		table string
		size  uint32
		fill  func(*sixpnmaps.Want)
	}{
		{bpf.RouterMapVips, 1, func(w *sixpnmaps.Want) {
			w.VIPs = append(w.VIPs, sixpnmaps.VIP{Network: red, Number: 4})
		}},
		{bpf.RouterMapAllocations, 1, func(w *sixpnmaps.Want) {
			for port := uint16(1); port < 3; port++ {
				w.Allocations = append(w.Allocations, sixpnmaps.Allocation{Client: blue, Network: red, Machine: 1, Protocol: sixpnmaps.ProtocolTCP, Port: port})
			}
		}},
		{bpf.RouterMapServices, 1, func(w *sixpnmaps.Want) {
			w.Services = append(w.Services, serviceOf(red, 3, 81, 81))
		}},
		{bpf.RouterMapServiceRanges, 1, func(w *sixpnmaps.Want) {
			w.Services = append(w.Services, serviceOf(red, 3, 100, 102))
		}},
		{bpf.RouterMapMaglev, 12, func(w *sixpnmaps.Want) {
			w.Services = append(w.Services, serviceOf(red, 3, 81, 81, backendAt(red, 1, 8080)))
		}},
		{bpf.RouterMapBackends, 2, func(w *sixpnmaps.Want) {
			w.Services = append(w.Services, serviceOf(red, 3, 81, 81, backendAt(red, 2, 8080)))
		}},
		{bpf.RouterMapQuotas, 2, func(w *sixpnmaps.Want) {
			for machine := sixpn.Machine(2); machine < 4; machine++ {
				w.Quotas = append(w.Quotas, sixpnmaps.Quota{Network: red, Machine: machine, Limit: 1})
			}
		}},
		{bpf.RouterMapPortCounters, 2, func(w *sixpnmaps.Want) {
			addMachine(w, 8, red, 2)
			addMachine(w, 9, red, 3)
			w.Quotas = w.Quotas[:1]
		}},
	} {
		t.Run(c.table, func(t *testing.T) {
			t.Parallel()
			size := sizes{}
			for name, entries := range small {
				size[name] = entries
			}
			size[c.table] = c.size
			k := newKernel(t, size)
			tables := k.open()
			base := oneService(backendAt(red, 1, 8080))
			addMachine(&base, 7, red, 1)
			sync(t, tables, base)
			before := k.view()

			more := base
			c.fill(&more)
			_, err := tables.Sync(context.Background(), more)
			var refused *sixpnmaps.RefusedError
			if !errors.As(err, &refused) || !refused.Tables(c.table) {
				t.Fatalf("the error is %v, want one of table %s", err, c.table)
			}
			if text := err.Error(); !strings.Contains(text, c.table) || !strings.Contains(text, "full") {
				t.Errorf("the error does not say that %s is full: %s", c.table, text)
			}
			after := k.view()
			for name, service := range before.Services {
				if got := after.Services[name]; len(got.To) != len(service.To) {
					t.Errorf("service %+v was %+v and is %+v", name, service, got)
				}
			}
			if after.Machines[bpf.RouterMachineKey{Network: uint32(red), Machine: 1}] != before.Machines[bpf.RouterMachineKey{Network: uint32(red), Machine: 1}] {
				t.Error("machine 1 is not as it was")
			}
			// With less to want there is room again.
			k.settle(t, tables, base)
			compare(t, k.view(), k.expect(base), "with room again")
		})
	}
}

// A full table is no obstacle to replacing all that is in it.
func TestFullTableIsReplaced(t *testing.T) {
	t.Parallel()
	size := sizes{}
	for name, entries := range small {
		size[name] = entries
	}
	size[bpf.RouterMapVips], size[bpf.RouterMapServices], size[bpf.RouterMapPortCounters] = 1, 1, 1
	k := newKernel(t, size)
	tables := k.open()
	for _, number := range []uint32{3, 4} {
		var want sixpnmaps.Want
		addMachine(&want, number, red, sixpn.Machine(number))
		want.VIPs = []sixpnmaps.VIP{{Network: red, Number: number}}
		want.Services = []sixpnmaps.Service{serviceOf(red, number, 80, 80, backendAt(red, 1, 8080))}
		k.settle(t, tables, want)
		compare(t, k.view(), k.expect(want), "replaced")
	}
}

// Regions are reused after the grace period, and pieces are joined again.
func TestRegionReuse(t *testing.T) {
	t.Parallel()
	size := sizes{}
	for name, entries := range small {
		size[name] = entries
	}
	size[bpf.RouterMapMaglev] = 40
	k := newKernel(t, size)
	k.length = func(backends int) int { return 10 * backends }
	tables := k.open()
	one, two, three := backendAt(red, 1, 8080), backendAt(red, 2, 8080), backendAt(red, 3, 8080)
	ports := func(services ...sixpnmaps.Service) sixpnmaps.Want { return sixpnmaps.Want{Services: services} }
	full := ports(serviceOf(red, 3, 1, 1, one), serviceOf(red, 3, 2, 2, one), serviceOf(red, 3, 3, 3, one), serviceOf(red, 3, 4, 4, one))
	k.settle(t, tables, full)

	// Every other region is let go: 20 elements, but not in one piece.
	holes := ports(full.Services[0], full.Services[2])
	k.settle(t, tables, holes)
	big := ports(full.Services[0], full.Services[2], serviceOf(red, 3, 9, 9, one, two))
	_, err := tables.Sync(context.Background(), big)
	var refused *sixpnmaps.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "needs 20 elements in one piece, the largest free one has 10") {
		t.Fatalf("the error is %v, want that no piece is large enough", err)
	}

	// A neighbour goes: its piece joins, but only after the grace period.
	big = ports(full.Services[0], serviceOf(red, 3, 9, 9, one, two))
	if _, err = tables.Sync(context.Background(), big); err == nil {
		t.Fatal("a region was reused within its grace period")
	}
	k.now = k.now.Add(grace)
	k.settle(t, tables, big)
	compare(t, k.view(), k.expect(big), "with joined pieces")

	// Three backends do not fit beside the two of before; the service keeps those.
	bigger := ports(full.Services[0], serviceOf(red, 3, 9, 9, one, two, three))
	if _, err = tables.Sync(context.Background(), bigger); err == nil {
		t.Fatal("40 elements held 10, 20 and 30")
	}
	got := k.view().Services[serviceName{sixpnmaps.VIP{Network: red, Number: 3}, 6, 9, 9}]
	if len(got.To) != 2 || got.Wrong != 0 {
		t.Errorf("the service leads to %+v, want to the two backends of before", got)
	}
}
