package loader

import (
	"errors"
	"slices"
	"strings"
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
	same(t, "made", second.Opened().Made, []string{"backend_load", "backends", "quotas", "services", "shares"})

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

// swapKey has the first two fields of a map's key change places.
func swapKey(name string) func(*ebpf.CollectionSpec) {
	return func(spec *ebpf.CollectionSpec) {
		key, _ := btf.As[*btf.Struct](spec.Maps[name].Key)
		changed := *key
		changed.Members = slices.Clone(key.Members)
		changed.Members[0].Name, changed.Members[1].Name = changed.Members[1].Name, changed.Members[0].Name
		spec.Maps[name].Key = &changed
	}
}

// What this host agreed on with others outlives a build of another layout, either way: it
// may not let begin more than it promised to, nor let in what has lost its place.
func TestWhatHostsAgreedOnIsCarriedOver(t *testing.T) {
	fence := bpf.RouterFenceKey{ClientHost: 1, Network: 2, Machine: 3, Port: 4, Protocol: 6}
	share := bpf.RouterShare{Limit: 5, Elsewhere: 6, Wanted: 1}
	for name, c := range map[string]struct {
		change func(*ebpf.CollectionSpec)
		made   []string
		fence  bpf.RouterFenceKey // as the other layout has it
		share  bpf.RouterShare
	}{
		"larger tables": {changes(
			func(s *ebpf.CollectionSpec) { s.Maps["fences"].MaxEntries *= 2 },
			func(s *ebpf.CollectionSpec) { s.Maps["shares"].MaxEntries *= 2 },
			func(s *ebpf.CollectionSpec) { s.Maps["fenced"].MaxEntries *= 2 },
		), []string{"fenced", "fences", "shares"}, fence, share},
		"fields of shares":      {swapFields("shares"), []string{"shares"}, fence, bpf.RouterShare{Limit: 6, Elsewhere: 5, Wanted: 1}},
		"fields of fences":      {swapKey("fences"), []string{"fences"}, bpf.RouterFenceKey{ClientHost: 2, Network: 1, Machine: 3, Port: 4, Protocol: 6}, share},
		"loads of another kind": {swapFields("backend_load"), []string{"backend_load", "shares"}, fence, share},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			other := w.config
			other.load = w.build(2, c.change)
			for i, config := range []Config{w.config, other, w.config} { // an older build finds a newer one's, too
				config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
				l := w.open(config)
				if i == 0 {
					w.must(errors.Join(bring(l, w.port), l.Maps().Fences.Put(fence, uint32(0)), l.Maps().Fenced.Put(uint32(0), uint32(1)), l.Maps().Shares.Put(uint32(7), share)))
					w.must(l.Close())
					continue
				}
				same(t, "made", l.Opened().Made, c.made)
				wantFence, wantShare := c.fence, c.share
				if i == 2 {
					wantFence, wantShare = fence, share
				}
				var nothing, any uint32
				var got bpf.RouterShare
				w.must(errors.Join(l.Maps().Fences.Lookup(wantFence, &nothing), l.Maps().Fenced.Lookup(uint32(0), &any), l.Maps().Shares.Lookup(uint32(7), &got)))
				same(t, "any fence", any, uint32(1))
				same(t, "share", got, wantShare)
				w.must(l.Close())
				w.passes()
			}
		})
	}
}

// A build that knows no shares and fences, and one that does, take each other's place. What
// the one does not know is gone with it.
func TestBuildWithoutSharedLimits(t *testing.T) {
	w := newWorld(t)
	tables := []string{"fenced", "fences", "shares", "wants"}
	lacks := func(load func() (*ebpf.CollectionSpec, error)) func() (*ebpf.CollectionSpec, error) {
		return func() (*ebpf.CollectionSpec, error) {
			spec, err := load()
			for _, name := range tables {
				delete(spec.Maps, name)
			}
			return spec, err
		}
	}
	without := w.config
	without.load, without.loadXDP = lacks(without.load), lacks(without.loadXDP)
	with := w.config
	with.load = w.build(2, nil)
	with.Fill = func(old, _ *bpf.RouterMaps) error {
		if old.Shares != nil || old.Fences != nil {
			t.Error("a table is there that the build before has not")
		}
		return nil
	}
	key, quota := bpf.RouterMachineKey{Network: 5, Machine: 6}, bpf.RouterQuota{Used: 7, Limit: 10}
	l := w.open(without)
	w.must(errors.Join(bring(l, w.port), l.Maps().Quotas.Put(key, quota), l.Close()))
	for range 2 {
		l := w.open(with)
		same(t, "made", l.Opened().Made, tables)
		var share bpf.RouterShare
		w.must(l.Maps().Shares.Lookup(uint32(3), &share))
		same(t, "share", share, bpf.RouterShare{})
		var kept bpf.RouterQuota
		w.must(l.Maps().Quotas.Lookup(key, &kept))
		same(t, "quota", kept, quota)
		w.must(errors.Join(l.Maps().Shares.Put(uint32(3), bpf.RouterShare{Limit: 9}), l.Close()))
		w.passes()
		l = w.open(without)
		same(t, "number made", len(l.Opened().Made), 0)
		w.must(l.Close())
		w.passes()
		for _, pin := range w.tree() {
			if name := pin[strings.LastIndex(pin, "/")+1:]; slices.Contains(tables, name) {
				t.Errorf("pin %s of a build that does not run is left", pin)
			}
		}
	}
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
