package loader

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/netns"
)

// ids are the kernel's numbers of all maps, by name.
func ids(t *testing.T, l *Loader) map[string]ebpf.MapID {
	t.Helper()
	found := map[string]ebpf.MapID{}
	for name, m := range l.all {
		id, err := mapID(m)
		if err != nil {
			t.Fatal(err)
		}
		found[name] = id
	}
	return found
}

func same(t *testing.T, what string, have, want any) {
	t.Helper()
	if !equal(have, want) {
		t.Errorf("%s: %v, expected %v", what, have, want)
	}
}

func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]ebpf.MapID:
		return maps.Equal(a, b.(map[string]ebpf.MapID))
	case []string:
		return slices.Equal(a, b.([]string))
	case []ebpf.ProgramID:
		return slices.Equal(a, b.([]ebpf.ProgramID))
	case []uint32:
		return slices.Equal(a, b.([]uint32))
	default:
		return a == b
	}
}

func TestRealRouterLoads(t *testing.T) {
	w := newWorld(t)
	config := w.config
	config.load, config.loadXDP = nil, nil
	config.Constants = Constants{Host: 0xa7b0d6b, EventsPerSecond: 7}
	l := w.open(config)
	w.must(bring(l, w.port))
	if l.Maps().Flows == nil || l.Maps().Drops == nil || l.Expire() == nil || l.Router() == nil || l.Mesh() == nil {
		t.Error("a map or a program is missing")
	}
	same(t, "devices", l.Devices(), []uint32{w.port})
	w.must(l.Close())
	l = w.open(config)
	same(t, "replaced by the same build", l.Opened().Replaced, false)
	same(t, "adopted", l.Opened().Adopted, true)
	w.must(l.Close())
	config.Constants.Host++
	l = w.open(config)
	same(t, "replaced by another host number", l.Opened().Replaced, true)
}

func TestSameBuildTakesOver(t *testing.T) {
	w := newWorld(t)
	first := w.open(w.config)
	w.must(bring(first, w.port))
	w.passes()
	wanted, pins, programs := ids(t, first), w.tree(), w.programs()
	w.must(first.Close())
	w.passes()
	second := w.open(w.config)
	same(t, "maps", ids(t, second), wanted)
	same(t, "pins", w.tree(), pins)
	same(t, "devices", second.Devices(), []uint32{w.port})
	w.must(bring(second, w.port))
	same(t, "programs", w.programs(), programs)
	w.passes()
}

func TestMissingPinsAreWrittenAgain(t *testing.T) {
	for _, row := range []struct {
		name   string
		remove []string
	}{
		{"one map", []string{"v1/flows"}},
		{"all maps", []string{"v1/[a-r]*", "v1/se*", "v1/v*"}},
		{"the program", []string{"v1/sixpn_router"}},
		{"the program that no device has", []string{"v1/sixpn_mesh"}},
		{"the whole version", []string{"v1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.open(w.config)
			w.must(bring(first, w.port))
			wanted, pins := ids(t, first), w.tree()
			w.must(first.Close())
			for _, pattern := range row.remove {
				paths, err := filepath.Glob(filepath.Join(w.config.PinRoot, pattern))
				w.must(err)
				if len(paths) == 0 {
					t.Fatalf("no pin is like %s", pattern)
				}
				for _, path := range paths {
					w.must(os.RemoveAll(path))
				}
			}
			second := w.open(w.config)
			same(t, "maps", ids(t, second), wanted)
			same(t, "pins", w.tree(), pins)
			same(t, "replaced", second.Opened().Replaced, false)
			w.passes()
		})
	}
}

func TestRepairWhileRunning(t *testing.T) {
	w := newWorld(t)
	l := w.open(w.config)
	w.must(bring(l, w.port))
	wanted, pins := ids(t, l), w.tree()
	w.must(os.RemoveAll(w.config.PinRoot))
	w.must(w.host.Do(func() error {
		return onDevice("port0", func(x netlink.Link) error { return removeFilter(x, w.config.Name) })
	}))
	w.passes() // the agent's descriptors keep it going
	w.must(l.Repair())
	same(t, "state", w.state(), state{true, true, true})
	same(t, "pins", w.tree(), pins)
	w.must(l.Close())
	w.passes()
	same(t, "maps", ids(t, w.open(w.config)), wanted)
}

func TestGoneDeviceIsForgotten(t *testing.T) {
	w := newWorld(t)
	first := w.open(w.config)
	w.must(bring(first, w.port))
	w.must(w.host.Do(func() error { return onDevice("port0", netlink.LinkDel) }))
	same(t, "devices of the running loader", len(first.Devices()), 0)
	w.must(first.Detach(w.port)) // a device that is gone is no error

	w.port = w.veth("port0", w.guest, guest6)
	w.must(bring(first, w.port))
	w.must(first.Close())
	w.must(w.host.Do(func() error { return onDevice("port0", netlink.LinkDel) }))
	second := w.open(w.config)
	same(t, "devices after a restart", len(second.Devices()), 0)
	for _, pin := range w.tree() {
		if strings.HasPrefix(pin, linksDir+"/") {
			t.Errorf("pin %s is left of a device that is gone", pin)
		}
	}
	if err := second.Attach(w.port); err == nil {
		t.Error("a device that is gone was attached")
	}
}

func TestFlowTableKeepsItsSize(t *testing.T) {
	w := newWorld(t)
	config := w.config
	config.FlowTableSize = 100
	first := w.open(config)
	w.must(bring(first, w.port))
	same(t, "size", first.Maps().Flows.MaxEntries(), uint32(100))
	wanted := ids(t, first)
	w.must(first.Close())
	config.FlowTableSize = 200
	second := w.open(config)
	same(t, "size after a restart", second.Maps().Flows.MaxEntries(), uint32(100))
	same(t, "maps", ids(t, second), wanted)
	same(t, "replaced", second.Opened().Replaced, false)
}

// swapFields exchanges the names of the first two fields of a map's value: every size stays.
func swapFields(name string) func(*ebpf.CollectionSpec) {
	return func(spec *ebpf.CollectionSpec) {
		value, _ := btf.As[*btf.Struct](spec.Maps[name].Value)
		changed := *value
		changed.Members = slices.Clone(value.Members)
		changed.Members[0].Name, changed.Members[1].Name = changed.Members[1].Name, changed.Members[0].Name
		spec.Maps[name].Value = &changed
	}
}

func TestChangedLayoutIsFilledBeforeItRuns(t *testing.T) {
	w := newWorld(t)
	first := w.open(w.config)
	w.must(bring(first, w.port))
	w.must(first.Maps().Services.Put(bpf.RouterServiceKey{Network: 4}, bpf.RouterService{Id: 3}))
	before, programs, pins := ids(t, first), w.programs(), w.tree()
	w.must(first.Close())
	config := w.config
	config.load = w.build(2, swapFields("services"))

	for name, fill := range map[string]func(old, new *bpf.RouterMaps) error{
		"no fill":     nil,
		"failed fill": func(_, _ *bpf.RouterMaps) error { return errors.New("no") },
	} {
		config.Fill = fill
		if l, err := Open(t.Context(), config); err == nil {
			_ = l.Close()
			t.Fatalf("%s: the new build started", name)
		}
		same(t, name+": programs", w.programs(), programs)
		same(t, name+": pins", w.tree(), pins)
		w.passes()
	}

	config.Fill = func(old, new *bpf.RouterMaps) error {
		same(t, "programs while filling", w.programs(), programs)
		var was bpf.RouterService
		w.must(old.Services.Lookup(bpf.RouterServiceKey{Network: 4}, &was))
		same(t, "the old map's element, as this build has it", was, bpf.RouterService{Generation: 3})
		if err := new.Services.Lookup(bpf.RouterServiceKey{Network: 4}, &was); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("the new map is not empty: %v", err)
		}
		have, _ := mapID(old.Vips)
		same(t, "an old map that this build goes on with", have, before["vips"])
		return new.Services.Put(bpf.RouterServiceKey{Network: 5}, bpf.RouterService{Id: 9})
	}
	second := w.open(config)
	after := ids(t, second)
	for name, id := range before {
		made := name == "services" || name == buildMap
		same(t, name+" was made again", id != after[name], made)
	}
	same(t, "made", second.Opened().Made, []string{"services"})
	var service bpf.RouterService
	w.must(second.Maps().Services.Lookup(bpf.RouterServiceKey{Network: 5}, &service))
	same(t, "what was filled in", service.Id, uint32(9))
	for _, pin := range w.tree() {
		if strings.HasPrefix(pin, "v1/") {
			t.Errorf("pin %s of the old version is left", pin)
		}
	}
	w.passes()
	w.must(second.Close())
	same(t, "maps after a restart", ids(t, w.open(config)), after)
}

func TestFlowLayoutIsFixed(t *testing.T) {
	w := newWorld(t)
	first := w.open(w.config)
	w.must(bring(first, w.port))
	programs := w.programs()
	w.must(first.Close())
	config := w.config
	config.load = w.build(2, swapFields("flows"))
	config.Fill = func(_, _ *bpf.RouterMaps) error { return nil }
	if l, err := Open(t.Context(), config); !errors.Is(err, ErrFlowTable) {
		if err == nil {
			_ = l.Close()
		}
		t.Fatalf("error %v, expected %v", err, ErrFlowTable)
	}
	same(t, "programs", w.programs(), programs)
	w.passes()
	config.ResetFlows = true
	second := w.open(config)
	same(t, "made", second.Opened().Made, []string{"backend_load", "flows", "quotas"})
	w.passes()
}

func TestOpenRefuses(t *testing.T) {
	w := newWorld(t)
	l := w.open(w.config)
	w.must(bring(l, w.port))
	w.must(l.Close())
	for _, row := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"no name", func(c *Config) { c.Name = "" }, "agent name"},
		{"a name that is a path", func(c *Config) { c.Name = "../other" }, "agent name"},
		{"pins on another file system", func(c *Config) { c.PinRoot = t.TempDir() }, "mount"},
		{"another namespace", func(c *Config) { c.Namespace = w.guest }, "another network namespace"},
		{"an object without the router", func(c *Config) {
			c.load = w.build(1, func(s *ebpf.CollectionSpec) { delete(s.Programs, routerName) })
		}, routerName},
		{"an object without a constant", func(c *Config) {
			c.Constants.Host = 5
			c.load = w.build(1, func(s *ebpf.CollectionSpec) { delete(s.Variables, "host") })
		}, "host"},
	} {
		t.Run(row.name, func(t *testing.T) {
			config := w.config
			row.change(&config)
			l, err := Open(t.Context(), config)
			if err == nil {
				_ = l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("error %v, expected one about %q", err, row.says)
			}
			w.passes()
		})
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v, expected %v", err, ErrLocked)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	_ = again.Close()
	if _, err := Lock(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that does not exist was locked")
	}
}

func TestMovedDeviceStaysAlone(t *testing.T) {
	w := newWorld(t)
	other := w.veth2("port1")
	l := w.open(w.config)
	w.must(bring(l, w.port))
	w.must(bring(l, other))
	w.must(l.Close())
	elsewhere, err := netns.Create(filepath.Join(filepath.Dir(w.host.Path()), "elsewhere"))
	w.must(err)
	t.Cleanup(func() {
		_ = elsewhere.Close()
		w.must(netns.Delete(elsewhere.Path()))
	})
	w.must(w.host.Do(func() error {
		return onDevice("port1", func(x netlink.Link) error { return netlink.LinkSetNsFd(x, int(elsewhere.File().Fd())) })
	}))
	same(t, "devices", w.open(w.config).Devices(), []uint32{w.port})
	removed, err := Reset(t.Context(), w.config)
	w.must(err)
	same(t, "removed", len(removed), 3)
}
