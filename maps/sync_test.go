package maps_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// town is a Want with something in every table.
func town() sixpnmaps.Want {
	var want sixpnmaps.Want
	addMachine(&want, 7, red, 1)
	addMachine(&want, 8, red, 2)
	addMachine(&want, 9, blue, 3)
	addHost(&want, 5)
	addMesh(&want, 6, 1420)
	want.Allocations = []sixpnmaps.Allocation{
		{Client: red, Network: blue, Machine: 3, Protocol: sixpnmaps.ProtocolTCP, Port: 8443},
		{Client: red, Network: blue, Machine: 3, Protocol: sixpnmaps.ProtocolUDP, Port: 8443},
	}
	want.VIPs = []sixpnmaps.VIP{{Network: red, Number: 3}, {Network: blue, Number: 3}}
	want.Services = []sixpnmaps.Service{
		serviceOf(red, 3, 80, 80, backendAt(red, 1, 8080), backendAt(red, 2, 8080)),
		serviceOf(red, 3, 8000, 8010, backendAt(red, 1, 8080), backendAt(red, 2, 8080)),
		serviceOf(blue, 3, 443, 443, backendAt(blue, 3, 8443)),
	}
	want.Quotas = append(want.Quotas, sixpnmaps.Quota{Network: red, Limit: 1000}, sixpnmaps.Quota{Network: blue, Limit: 1000})
	return want
}

// otherTown differs from town in every table, and its devices are those of town with
// other Machines behind them.
func otherTown() sixpnmaps.Want {
	var want sixpnmaps.Want
	addMachine(&want, 9, red, 1)
	addMachine(&want, 7, blue, 3)
	addMachine(&want, 5, blue, 4)
	addMachine(&want, 6, blue, 5)
	addHost(&want, 8)
	addMesh(&want, 10, 1280)
	want.Allocations = []sixpnmaps.Allocation{
		{Client: red, Network: blue, Machine: 3, Protocol: sixpnmaps.ProtocolTCP, Port: 8443},
		{Client: red, Network: blue, Machine: 4, Protocol: sixpnmaps.ProtocolTCP, Port: 8443},
	}
	want.VIPs = []sixpnmaps.VIP{{Network: red, Number: 3}, {Network: blue, Number: 4}}
	crossing := serviceOf(blue, 4, 443, 443, backendAt(red, 1, 8080), backendAt(red, 2, 8080))
	crossing.Flags = sixpnmaps.CrossNetwork
	limited := serviceOf(red, 3, 8000, 8004, backendAt(red, 1, 8080))
	limited.SoftLimit, limited.HardLimit = 10, 20
	refused := serviceOf(red, 3, 80, 80)
	want.Services = []sixpnmaps.Service{
		refused, limited, crossing,
		serviceOf(red, 3, 8005, 8010, backendAt(red, 2, 8081), backendAt(red, 1, 8080)),
	}
	want.Quotas = append(want.Quotas, sixpnmaps.Quota{Network: red, Limit: 500}, sixpnmaps.Quota{Network: blue, Limit: 1000})
	return want
}

func TestSync(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	for _, step := range []struct {
		name string
		want sixpnmaps.Want
	}{
		{"town", town()},
		{"other town", otherTown()},
		{"nothing", sixpnmaps.Want{}},
		{"town again", town()},
	} {
		sync(t, tables, step.want)
		k.settle(t, tables, step.want)
		compare(t, k.view(), k.expect(step.want), "with "+step.name)
		// Another agent finds all as it should be.
		k.settle(t, k.open(), step.want)
	}
}

// A Sync may end after any write: the next one, of this agent or of another, ends
// where it would have, and no state on the way opens a wall.
func TestSyncInterrupted(t *testing.T) {
	t.Parallel()
	for _, pair := range []struct {
		name     string
		from, to sixpnmaps.Want
	}{
		{"between nothing and town", sixpnmaps.Want{}, town()},
		{"between town and other town", town(), otherTown()},
	} {
		t.Run(pair.name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t, small)
			tables := k.open()
			k.settle(t, tables, pair.from)
			forth, back := false, false
			for stop := 1; !forth || !back; stop++ {
				tables, forth = k.interrupt(tables, stop, pair.to)
				tables, back = k.interrupt(tables, stop, pair.from)
			}
		})
	}
}

// interrupt ends a Sync after so many writes, finishes it, and compares. finished says
// that it has no more writes than that.
func (k *kernel) interrupt(tables *sixpnmaps.Tables, stop int, want sixpnmaps.Want) (_ *sixpnmaps.Tables, finished bool) {
	k.t.Helper()
	before, after := k.glance(), k.expect(want)
	interrupted := errors.New("interrupted")
	writes := 0
	k.after = func(string) error {
		writes++
		k.checkWall(k.t, before, after)
		if writes == stop {
			return interrupted
		}
		return nil
	}
	_, err := tables.Sync(context.Background(), want)
	if err != nil && !errors.Is(err, interrupted) {
		k.t.Fatal(err)
	}
	if stop%2 == 0 { // the agent died
		tables = k.open()
	}
	stop = 0
	k.settle(k.t, tables, want)
	k.after = nil
	compare(k.t, k.view(), after, "after an interruption")
	return tables, err == nil
}

func TestSyncStopsWithItsContext(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	ctx, cancel := context.WithCancel(context.Background())
	k.after = func(string) error {
		cancel()
		return nil
	}
	changes, err := k.open().Sync(ctx, town())
	if !errors.Is(err, context.Canceled) || changes.Writes != 1 {
		t.Errorf("after %d writes: %v; want 1, and that the context was canceled", changes.Writes, err)
	}
}

// Until all ports are known again nothing is taken out, except what would lead to the
// device of another Machine.
func TestSyncAddOnly(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	k.settle(t, tables, town())

	more := sixpnmaps.Want{AddOnly: true}
	addMachine(&more, 11, red, 6)
	sync(t, tables, more)
	expected := town()
	addMachine(&expected, 11, red, 6)
	compare(t, k.view(), k.expect(expected), "with one more")

	reused := sixpnmaps.Want{AddOnly: true}
	addMachine(&reused, 9, red, 5)
	sync(t, tables, reused)
	got := k.view()
	if _, ok := got.Machines[bpf.RouterMachineKey{Network: uint32(blue), Machine: 3}]; ok {
		t.Error("machine 3 of the blue network still leads to the device that machine 5 of the red one has now")
	}
	if len(got.Services) != len(k.expect(town()).Services) {
		t.Errorf("services were taken out: %v", got.Services)
	}
}

func TestSyncRefusesMistakes(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	for name, spoil := range map[string]func(*sixpnmaps.Want){
		"port without a device":    func(w *sixpnmaps.Want) { w.Ports[0].Ifindex = 0 },
		"device twice":             func(w *sixpnmaps.Want) { w.Ports[0].Ifindex = w.Ports[1].Ifindex },
		"machine twice":            func(w *sixpnmaps.Want) { w.Machines = append(w.Machines, w.Machines[0]) },
		"machine without a port":   func(w *sixpnmaps.Want) { w.Machines[0].Ifindex = 99 },
		"host device without port": func(w *sixpnmaps.Want) { w.HostDevice.Ifindex = 99 },
		"mesh device without port": func(w *sixpnmaps.Want) { w.Mesh.Ifindex = 99 },
		"allocation of nothing":    func(w *sixpnmaps.Want) { w.Allocations[0].Port = 0 },
		"allocation for itself":    func(w *sixpnmaps.Want) { w.Allocations[0].Client = blue },
		"port 0":                   func(w *sixpnmaps.Want) { w.Services[0].First = 0 },
		"range upside down":        func(w *sixpnmaps.Want) { w.Services[1].Last = 7999 },
		"overlapping services":     func(w *sixpnmaps.Want) { w.Services[0].Last = 8000 },
	} {
		want := town()
		spoil(&want)
		changes, err := tables.Sync(context.Background(), want)
		if err == nil || changes.Writes != 0 {
			t.Errorf("%s: %d writes and error %v; want none and an error", name, changes.Writes, err)
		}
	}
}
