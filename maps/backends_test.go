package maps_test

import (
	"testing"

	"github.com/sixpn/sixpn/bpf"
	sixpnmaps "github.com/sixpn/sixpn/maps"
)

// oneService is a Want with one address and one service.
func oneService(backends ...sixpnmaps.Backend) sixpnmaps.Want {
	return sixpnmaps.Want{
		VIPs:     []sixpnmaps.VIP{{Network: red, Number: 3}},
		Services: []sixpnmaps.Service{serviceOf(red, 3, 80, 80, backends...)},
	}
}

// element finds the elements of a backend, by index.
func (k *kernel) elements(backend sixpnmaps.Backend) (indices []uint32) {
	for index, b := range k.backends() {
		if b.Machine != 0 && backendOf(b) == backend {
			indices = append(indices, uint32(index))
		}
	}
	return indices
}

func (k *kernel) setLive(index, live uint32) {
	k.t.Helper()
	must(k.t, k.BackendLoad.Put(index, bpf.RouterLoad{Live: live, Generation: k.backends()[index].Generation, Total: 9}))
}

func (k *kernel) load(index uint32) (load bpf.RouterLoad) {
	k.t.Helper()
	must(k.t, k.BackendLoad.Lookup(index, &load))
	return load
}

// A backend that is gone is freed when its flows are, and not before the grace period;
// then its element is another's, with a load of its own.
func TestBackendIsReusedWhenNotLive(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	one, two, three := backendAt(red, 1, 8080), backendAt(red, 2, 8080), backendAt(red, 3, 8080)
	k.settle(t, tables, oneService(one, two))
	index := k.elements(one)[0]
	first := k.backends()[index]
	k.setLive(index, 2)

	isGone := func() bool { return k.backends()[index].Flags&1 != 0 }
	isFree := func() bool { return k.backends()[index].Machine == 0 }
	for _, step := range []struct {
		name       string
		prepare    func()
		want       sixpnmaps.Want
		gone, free bool
	}{
		{"still wanted", func() {}, oneService(one, two), false, false},
		{"not wanted", func() {}, oneService(two), true, false},
		{"after the grace period, with live flows", func() { k.now = k.now.Add(grace) }, oneService(two), true, false},
		{"known to another agent", func() { tables = k.open() }, oneService(two), true, false},
		{"without live flows, within its grace period", func() { k.setLive(index, 0) }, oneService(two), true, false},
		{"after that", func() { k.now = k.now.Add(grace) }, oneService(two), false, true},
	} {
		step.prepare()
		sync(t, tables, step.want)
		if isGone() != step.gone || isFree() != step.free {
			t.Fatalf("%s: gone is %v, free is %v, want %v and %v", step.name, isGone(), isFree(), step.gone, step.free)
		}
	}
	sync(t, tables, oneService(two, three))
	if got := k.elements(three); len(got) != 1 || got[0] != index {
		t.Fatalf("the new backend has the elements %v, want %d: it is free", got, index)
	}
	if got, want := k.backends()[index].Generation, first.Generation+1; got != want {
		t.Errorf("the generation is %d, want %d: a flow of the one before must not count", got, want)
	}
	if got, want := k.load(index), (bpf.RouterLoad{Generation: first.Generation + 1}); got != want {
		t.Errorf("the load is %+v, want %+v", got, want)
	}
}

// A Machine that was gone and comes back is another process: its flows are not those
// of before.
func TestBackendThatComesBackIsAnother(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	one := backendAt(red, 1, 8080)
	sync(t, tables, oneService(one))
	before := k.elements(one)[0]
	k.setLive(before, 1)
	if changes := sync(t, tables, oneService()); changes.Gone != 1 {
		t.Errorf("%d backends were flagged, want 1", changes.Gone)
	}
	sync(t, tables, oneService(one))
	if got := k.elements(one); len(got) != 2 {
		t.Fatalf("the backend has the elements %v, want the old one and a new one", got)
	}
	if k.backends()[before].Flags&1 == 0 {
		t.Error("the flows of the process that is gone were taken for the new one's")
	}
	if got := k.view().Services[serviceName{sixpnmaps.VIP{Network: red, Number: 3}, 6, 80, 80}]; got.Wrong != 0 || len(got.To) != 1 {
		t.Errorf("the service leads to %+v", got)
	}
}

// A backend that drains takes no new flow, and is not gone.
func TestBackendDrains(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	one, two := backendAt(red, 1, 8080), backendAt(red, 2, 8080)
	sync(t, tables, oneService(one, two))
	index := k.elements(two)[0]

	draining := oneService(one)
	draining.Services[0].Draining = []sixpnmaps.Backend{two}
	sync(t, tables, draining)
	if got := k.backends()[index]; got.Flags != 0 || got.Machine != 2 {
		t.Errorf("a backend that drains is %+v", got)
	}
	got := k.view().Services[serviceName{sixpnmaps.VIP{Network: red, Number: 3}, 6, 80, 80}]
	if got.To[two] != 0 || got.To[one] == 0 || got.Wrong != 0 {
		t.Errorf("the service leads to %+v, want only to the backend that does not drain", got)
	}
	sync(t, tables, oneService(one, two))
	if got := k.elements(two); len(got) != 1 || got[0] != index {
		t.Errorf("a backend that drains no more has the elements %v, want %d as before", got, index)
	}
	// One that was never here has no flows to keep.
	unknown := oneService(one, two)
	unknown.Services[0].Draining = []sixpnmaps.Backend{backendAt(red, 6, 8080)}
	if changes := sync(t, tables, unknown); changes.Writes != 0 {
		t.Errorf("a backend that drains and was never here caused %v", changes.Tables)
	}
}

// A quota stays while flows count in it, so that none counts below zero.
func TestQuotaStaysWhileUsed(t *testing.T) {
	t.Parallel()
	k := newKernel(t, small)
	tables := k.open()
	key := bpf.RouterMachineKey{Network: uint32(red), Machine: 1}
	want := sixpnmaps.Want{Quotas: []sixpnmaps.Quota{{Network: red, Machine: 1, Limit: 100}}}
	sync(t, tables, want)
	must(t, k.Quotas.Put(key, bpf.RouterQuota{Used: 3, Limit: 100, Refused: 7}))

	has := func() bool { _, ok := k.glance().Quotas[key]; return ok }
	for range 3 {
		changes := sync(t, tables, sixpnmaps.Want{})
		if !has() || changes.Waiting == 0 {
			t.Fatal("a quota that live flows count in is not waited for")
		}
		k.now = k.now.Add(grace)
	}
	want.Quotas[0].Limit = 200
	sync(t, tables, want)
	uses, err := tables.QuotaUses()
	must(t, err)
	if got, expected := uses[0], (sixpnmaps.QuotaUse{Quota: want.Quotas[0], Used: 3, Refused: 7}); got != expected {
		t.Errorf("with another limit the quota is %+v, want %+v", got, expected)
	}
	must(t, k.Quotas.Put(key, bpf.RouterQuota{Limit: 200}))
	k.settle(t, tables, sixpnmaps.Want{})
	if has() {
		t.Error("a quota that nobody uses or wants is still there")
	}
}
