package reconcile_test

import (
	"slices"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
)

// A port leaves XDP once, and comes back to it when it is set again.
func TestLoopLeavesXDP(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.app("web", red)
	id := w.machine("web", 1)
	f := newTables(fine)
	loop := start(t, reconcile.Config{Store: newStore(w), Tables: f})
	byXDP := func(want maps.Want) bool {
		return slices.ContainsFunc(want.Machines, func(m maps.Machine) bool { return m.XDP })
	}
	until := func(holds func(maps.Want) bool) {
		t.Helper()
		for !holds(next(t, f)) { //nolint:revive // passes of before are in between
		}
	}
	p := port(id, red, 1)
	p.XDP = true
	for range 2 {
		ok(t, loop.SetPort(await.Context(t), p))
		until(byXDP)
		if devices := loop.XDPDevices(); !slices.Equal(devices, []uint32{p.Ifindex}) {
			t.Errorf("devices %v get packets by XDP, expected %d", devices, p.Ifindex)
		}
		if loop.LeaveXDP(p.Ifindex + 1) {
			t.Error("a device that is no port left XDP")
		}
		if !loop.LeaveXDP(p.Ifindex) {
			t.Error("the port did not leave XDP")
		}
		until(func(want maps.Want) bool { return len(want.Machines) == 1 && !byXDP(want) })
		if loop.LeaveXDP(p.Ifindex) || len(loop.XDPDevices()) != 0 {
			t.Error("the port left XDP twice")
		}
	}
}
