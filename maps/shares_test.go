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
		for i := range got {
			got[i].Element = 0 // as the kernel likes
		}
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

// What is void, or has lost its backend, is told until no packet of it passes, and takes
// no new flow; a share that was meant for the element before is not the next one's.
func TestVoid(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	one := backendAt(red, 1, 8080)
	want := oneService(one)
	want.Services[0].Flags, want.Services[0].HardLimit = sixpnmaps.Shared, 9
	sync(t, tables, want)
	read := func() (seat sixpnmaps.SeatLoad) {
		t.Helper()
		all, _, err := tables.Seats()
		must(t, err)
		if len(all) > 1 {
			t.Fatalf("one seat is told as %+v", all)
		}
		for _, seat = range all {
		}
		return seat
	}
	before := read()
	k.setLive(before.Element, 3)
	must(t, tables.Void([]sixpnmaps.Seat{before.Seat}))
	if now := read(); now.Live != 3 || now.Ending != 0 || now.Element != before.Element {
		t.Errorf("before a Sync what is void is told as %+v", now)
	}
	sync(t, tables, want)
	now := read()
	if now.Live != 0 || now.Ending != 3 || now.Element == before.Element || now.Element == 0 {
		t.Errorf("after a Sync what is void is told as %+v", now)
	}
	must(t, tables.SetShares([]sixpnmaps.Share{{Seat: before.Seat, Element: before.Element, Limit: 5}}))
	if now := read(); now.Share != 0 {
		t.Errorf("the next element has the share %d of the one before", now.Share)
	}
	k.setLive(now.Element, 1)
	sync(t, tables, sixpnmaps.Want{})
	if gone := read(); gone.Element != 0 || gone.Live != 0 || gone.Ending != 4 {
		t.Errorf("without its service the seat is told as %+v", gone)
	}
	k.setLive(before.Element, 0)
	k.setLive(now.Element, 0)
	if gone := read(); gone != (sixpnmaps.SeatLoad{}) {
		t.Errorf("when all has ended there is still %+v", gone)
	}
}

// Fences are in the kernel, for the next agent too.
func TestFences(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	one := sixpnmaps.Fence{Client: 12, Network: red, Machine: 1, Protocol: 6, Port: 8080}
	two := one
	two.Protocol = 17
	expect := func(want ...sixpnmaps.Fence) {
		t.Helper()
		got, err := k.open().Fences()
		must(t, err)
		slices.SortFunc(got, sixpnmaps.Fence.Compare)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("- wanted, + got:\n%s", d)
		}
		var any uint32
		must(t, k.Fenced.Lookup(uint32(0), &any))
		if (any != 0) != (len(want) > 0) {
			t.Errorf("with %d fences packets are told %d", len(want), any)
		}
	}
	expect()
	must(t, k.open().SetFences([]sixpnmaps.Fence{one, two}, nil))
	expect(one, two)
	must(t, k.open().SetFences([]sixpnmaps.Fence{one}, []sixpnmaps.Fence{two, two}))
	expect(one)
	must(t, k.open().SetFences(nil, []sixpnmaps.Fence{one}))
	expect()
}
