package maps_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// Shares are those of a seat for as long as it is in the tables, and no longer.
func TestShares(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	one, two := backendAt(red, 1, 8080), backendAt(red, 2, 8080)
	shared := func(backends ...sixpnmaps.Backend) sixpnmaps.Want {
		want := oneService(backends...)
		want.Services[0].Flags, want.Services[0].HardLimit = sixpnmaps.Shared, 9
		return want
	}
	seat := func(b sixpnmaps.Backend) sixpnmaps.Seat {
		return sixpnmaps.Seat{VIP: sixpnmaps.VIP{Network: red, Number: 3}, Protocol: 6, First: 80, Backend: b}
	}
	load := func(b sixpnmaps.Backend, live, share, elsewhere uint32) sixpnmaps.SeatLoad {
		return sixpnmaps.SeatLoad{Seat: seat(b), Limits: sixpnmaps.Limits{Hard: 9}, Live: live, Share: share, Elsewhere: elsewhere}
	}
	expect := func(name string, want ...sixpnmaps.SeatLoad) {
		t.Helper()
		got, complete, err := tables.Seats()
		must(t, err)
		slices.SortFunc(got, func(a, b sixpnmaps.SeatLoad) int { return sixpnmaps.CompareSeats(a.Seat, b.Seat) })
		if d := cmp.Diff(want, got); d != "" || !complete {
			t.Fatalf("%s: complete is %v, the seats differ (- wanted, + got):\n%s", name, complete, d)
		}
	}
	if _, complete, err := tables.Seats(); complete || err != nil {
		t.Fatalf("before a Sync all seats are known: %v, %v", complete, err)
	}

	k.settle(t, tables, shared(one, two))
	expect("at first", load(one, 0, 0, 0), load(two, 0, 0, 0))
	must(t, tables.SetShares([]sixpnmaps.Share{{Seat: seat(one), Limit: 4, Elsewhere: 2}, {Seat: seat(backendAt(red, 7, 1)), Limit: 5}}))
	index := k.elements(one)[0]
	k.setLive(index, 3)
	expect("with a share", load(one, 3, 4, 2), load(two, 0, 0, 0))

	must(t, k.Shares.Put(index, bpf.RouterShare{Limit: 4, Elsewhere: 2, Wanted: 1}))
	wanted := load(one, 3, 4, 2)
	wanted.Wanted = true
	expect("when one is wanted", wanted, load(two, 0, 0, 0))
	expect("after that was read", load(one, 3, 4, 2), load(two, 0, 0, 0))

	tables = k.open()
	partial := shared(two)
	partial.AddOnly = true
	sync(t, tables, partial)
	if _, complete, err := tables.Seats(); complete || err != nil {
		t.Fatalf("after a Sync of a part all seats are known: %v, %v", complete, err)
	}
	sync(t, tables, shared(one, two))
	expect("to another agent", load(one, 3, 4, 2), load(two, 0, 0, 0))

	k.setLive(index, 0)
	k.settle(t, tables, shared(two))
	expect("without the backend", load(two, 0, 0, 0))
	k.settle(t, tables, shared(one, two))
	expect("when it is back", load(one, 0, 0, 0), load(two, 0, 0, 0))

	k.settle(t, tables, oneService(one, two))
	expect("without shared limits")
}
