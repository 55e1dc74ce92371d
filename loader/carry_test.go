package loader

import (
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/sixpn/sixpn/bpf"
)

// grow puts a field of four bytes before all others of a map's value.
func grow(name string) func(*ebpf.CollectionSpec) {
	return func(spec *ebpf.CollectionSpec) {
		value, _ := btf.As[*btf.Struct](spec.Maps[name].Value)
		changed := *value
		changed.Size += 8 // eight, so that fields keep their alignment
		changed.Members = slices.Clone(value.Members)
		for i := range changed.Members {
			changed.Members[i].Offset += 64
		}
		number := &btf.Int{Name: "unsigned int", Size: 4}
		changed.Members = append([]btf.Member{{Name: "added", Type: number}}, changed.Members...)
		spec.Maps[name].Value = &changed
		spec.Maps[name].ValueSize = changed.Size
	}
}

func changes(all ...func(*ebpf.CollectionSpec)) func(*ebpf.CollectionSpec) {
	return func(spec *ebpf.CollectionSpec) {
		for _, change := range all {
			change(spec)
		}
	}
}

func TestWhatFlowsReferToIsCarriedOver(t *testing.T) {
	w := newWorld(t)
	first := w.open(w.config)
	w.must(bring(first, w.port))
	key := bpf.RouterMachineKey{Network: 5, Machine: 6}
	quota := bpf.RouterQuota{Used: 70, Limit: 100, Refused: 3}
	backend := bpf.RouterBackend{Network: 1, Host: 2, Machine: 3, Generation: 4, Port: 80}
	last := uint32(testTables - 1)
	w.must(errors.Join(
		first.Maps().Quotas.Put(key, quota),
		first.Maps().Backends.Put(last, backend),
		first.Maps().BackendLoad.Put(last, bpf.RouterLoad{Live: 7, Generation: 4, Total: 9}),
		first.Maps().Services.Put(bpf.RouterServiceKey{Network: 5}, bpf.RouterService{Id: 9}),
	))
	w.must(first.Close())

	config := w.config
	config.load = w.build(2, changes(
		grow("quotas"), swapFields("backends"), swapFields("services"),
		func(s *ebpf.CollectionSpec) { s.Maps["backend_load"].MaxEntries *= 2 },
	))
	config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
	second := w.open(config)
	same(t, "made", second.Opened().Made, []string{"backend_load", "backends", "quotas", "services"})

	var grown struct {
		Added, Pad uint32
		Quota      bpf.RouterQuota
	}
	w.must(second.Maps().Quotas.Lookup(key, &grown))
	if grown.Added != 0 || grown.Quota != quota {
		t.Errorf("quota %+v, expected %+v after an added field of 0", grown, quota)
	}
	var moved bpf.RouterBackend
	w.must(second.Maps().Backends.Lookup(last, &moved))
	backend.Network, backend.Host = backend.Host, backend.Network // as the new layout has them
	same(t, "backend", moved, backend)
	var load bpf.RouterLoad
	w.must(second.Maps().BackendLoad.Lookup(last, &load))
	same(t, "live flows", load.Live, uint32(7))
	var service bpf.RouterService
	if err := second.Maps().Services.Lookup(bpf.RouterServiceKey{Network: 5}, &service); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("a service was carried over (%v): Fill makes it anew", err)
	}
	w.passes()
}

func TestCarriedIntoTooSmall(t *testing.T) {
	w := newWorld(t)
	first := w.open(w.config)
	w.must(bring(first, w.port))
	programs := w.programs()
	for machine := range uint32(10) {
		w.must(first.Maps().Quotas.Put(bpf.RouterMachineKey{Network: 5, Machine: machine}, bpf.RouterQuota{Used: 1}))
	}
	w.must(first.Close())
	config := w.config
	config.load = w.build(2, func(s *ebpf.CollectionSpec) { s.Maps["quotas"].MaxEntries = 5 })
	config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
	if err := closedWith(Open(t.Context(), config)); err == nil {
		t.Error("a build whose table is too small for what runs started")
	}
	same(t, "programs", w.programs(), programs)
	w.passes()
}
