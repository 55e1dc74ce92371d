package loader

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// While devices change from one program to the other both count, each in its own tables.
// In the end all is counted, and by no share begin more flows than one table has room for.
func TestCountsOfTheChange(t *testing.T) {
	const kept, freed, fresh, taken = 5, 6, 7, 8 // elements
	w := newWorld(t)
	first := w.open(w.config)
	w.must(bring(first, w.port))
	old := first.Maps()
	key := bpf.RouterMachineKey{Network: 5, Machine: 6}
	load := func(m *ebpf.Map, element uint32, l bpf.RouterLoad) { w.must(m.Put(element, l)) }
	for _, element := range []uint32{kept, freed, taken} {
		load(old.BackendLoad, element, bpf.RouterLoad{Live: 3, Generation: 4, Total: 9})
		w.must(old.Shares.Put(element, bpf.RouterShare{Limit: 5}))
	}
	w.must(old.Quotas.Put(key, bpf.RouterQuota{Used: 70, Limit: 100, Refused: 3}))

	config := w.config
	config.load = w.build(2, changes(swapFields("backend_load"), grow("quotas")))
	var made *bpf.RouterMaps
	config.Fill = func(_, new *bpf.RouterMaps) error {
		made = new
		// As the other layout has it: another backend's, and one that was none before.
		load(new.BackendLoad, taken, bpf.RouterLoad{Live: 5, Generation: 0})
		return nil
	}
	seen := false
	config.step = func(name string) error {
		switch name {
		case "filled": // packets go on to be counted by the running program
			load(old.BackendLoad, kept, bpf.RouterLoad{Live: 5, Generation: 4, Total: 11})
			load(old.BackendLoad, freed, bpf.RouterLoad{Live: 1, Generation: 4, Total: 9})
			load(old.BackendLoad, fresh, bpf.RouterLoad{Live: 1, Generation: 0, Total: 1})
			load(old.BackendLoad, taken, bpf.RouterLoad{Live: 9, Generation: 4, Total: 15})
			w.must(old.Quotas.Put(key, bpf.RouterQuota{Used: 75, Limit: 100, Refused: 4}))
		case "settle counts": // and by the new one
			seen = true
			w.must(made.BackendLoad.Put(uint32(kept), bpf.RouterLoad{Live: 4, Generation: 7, Total: 13}))
			var share bpf.RouterShare
			w.must(made.Shares.Lookup(uint32(kept), &share))
			same(t, "share while both programs count", share, bpf.RouterShare{})
			w.must(old.Shares.Lookup(uint32(kept), &share))
			same(t, "share of the running program", share, bpf.RouterShare{Limit: 5})
		}
		return nil
	}
	second := w.open(config)
	same(t, "counts were settled", seen, true)
	// Live and generation have changed places.
	for element, want := range map[uint32]bpf.RouterLoad{
		kept: {Live: 4, Generation: 9, Total: 15}, freed: {Live: 4, Generation: 1, Total: 9},
		fresh: {Live: 0, Generation: 1, Total: 1}, taken: {Live: 5, Generation: 0},
	} {
		var got bpf.RouterLoad
		w.must(second.Maps().BackendLoad.Lookup(element, &got))
		same(t, fmt.Sprintf("load of element %d", element), got, want)
		var share bpf.RouterShare
		w.must(second.Maps().Shares.Lookup(element, &share))
		if want := (element == kept || element == freed); (share == bpf.RouterShare{Limit: 5}) != want {
			t.Errorf("the share of element %d is %+v, carried over: %t expected", element, share, want)
		}
	}
	var quota struct {
		Added, Pad uint32
		Quota      bpf.RouterQuota
	}
	w.must(second.Maps().Quotas.Lookup(key, &quota))
	same(t, "quota", quota.Quota, bpf.RouterQuota{Used: 75, Limit: 100, Refused: 4})
	w.must(first.Close())
	w.passes()
}

// An agent that is killed while the programs change leaves what was counted meanwhile to the
// next one, which adds it up once. Until then no flow begins by the new tables' shares.
func TestKilledBeforeCountsAreSettled(t *testing.T) {
	const elements = 3
	for _, c := range []struct {
		at      string
		after   int  // steps of that name
		counted bool // the program before is still on a device, or was when the tables were carried
	}{
		{"filled", 0, true},
		{"pin map", 3, true},
		{"update link", 0, true},
		{"settle counts", 0, true},
		{"added up", 0, false},
		{"added up", 2, false},
		{"settled", 0, false},
		{"remove version", 0, false},
	} {
		t.Run(fmt.Sprintf("%s %d", c.at, c.after), func(t *testing.T) {
			w := newWorld(t)
			first := w.open(w.config)
			w.must(bring(first, w.port))
			old := first.Maps()
			key := bpf.RouterMachineKey{Network: 5, Machine: 6}
			count := func(live, used uint32) {
				for element := range uint32(elements) {
					w.must(old.BackendLoad.Put(1+element, bpf.RouterLoad{Live: live, Generation: 4}))
				}
				w.must(old.Quotas.Put(key, bpf.RouterQuota{Used: used, Limit: 100}))
			}
			count(3, 7)
			for element := range uint32(elements) {
				w.must(old.Shares.Put(1+element, bpf.RouterShare{Limit: 9}))
			}
			config := w.config
			config.load = w.build(2, changes(swapFields("backend_load"), func(s *ebpf.CollectionSpec) { s.Maps["quotas"].MaxEntries *= 2 }))
			config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
			left := c.after
			config.step = func(name string) error {
				if name == "filled" && !c.counted {
					count(5, 8)
				}
				if name != c.at {
					return nil
				}
				if left--; left < 0 {
					return errKilled
				}
				return nil
			}
			if err := closedWith(Open(t.Context(), config)); !errors.Is(err, errKilled) {
				t.Fatalf("error %v, expected to be killed", err)
			}
			if c.counted {
				count(5, 8)
			}
			config.step = nil
			w.must(config.complete())
			second := w.open(config)
			for element := range uint32(elements) {
				var load bpf.RouterLoad
				var share bpf.RouterShare
				w.must(errors.Join(second.Maps().BackendLoad.Lookup(1+element, &load), second.Maps().Shares.Lookup(1+element, &share)))
				same(t, fmt.Sprintf("load of element %d", 1+element), load, bpf.RouterLoad{Live: 4, Generation: 5}) // which have changed places
				same(t, "its share", share, bpf.RouterShare{Limit: 9})
			}
			var quota bpf.RouterQuota
			w.must(second.Maps().Quotas.Lookup(key, &quota))
			same(t, "quota", quota, bpf.RouterQuota{Used: 8, Limit: 100})
			w.must(errors.Join(first.Close(), second.Close()))
			w.converged(config)
		})
	}
}
