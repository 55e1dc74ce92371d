package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/bpf"
)

// versions lists the version directories, newest first.
func (l *Loader) versions() ([]int, error) {
	entries, err := os.ReadDir(l.config.PinRoot)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var versions []int
	for _, entry := range entries {
		number, ok := strings.CutPrefix(entry.Name(), "v")
		if version, err := strconv.Atoi(number); ok && err == nil {
			versions = append(versions, version)
		}
	}
	slices.Sort(versions)
	slices.Reverse(versions)
	return versions, nil
}

func (l *Loader) versionDir(version int) string {
	return filepath.Join(l.config.PinRoot, "v"+strconv.Itoa(version))
}

// load decides whether the running program is this build's, and makes this
// build's beside it if not. No device is touched yet.
func (l *Loader) load(r *running) error {
	l.opened.Adopted = r.program != nil
	replacements, made, err := l.plan(r)
	if err != nil {
		return err
	}
	current := r.program != nil && r.signature == l.build.signature && len(made) == 0
	spec := l.build.spec
	if current {
		delete(spec.Programs, routerName)
	}
	if err := l.config.step("load"); err != nil {
		return err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Maps: ebpf.MapOptions{}, MapReplacements: replacements,
	})
	if err != nil {
		return fmt.Errorf("load the programs of this build: %w", err)
	}
	defer collection.Close()
	l.expire = collection.DetachProgram(expireName)
	for name := range spec.Maps {
		if !isData(name) {
			l.all[name] = collection.DetachMap(name)
		}
	}
	l.maps = routerMaps(l.all)
	if current {
		return l.takeRunning(r)
	}
	l.router = collection.DetachProgram(routerName)
	if l.all[buildMap], err = l.build.newBuildMap(); err != nil {
		return err
	}
	// Bound, even a map that the router never reads is found by its program.
	for name, m := range l.all {
		if err := l.router.BindMap(m); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("bind map %s to the router: %w", name, err)
		}
	}
	l.opened.Replaced, l.opened.Made = l.opened.Adopted, made
	if len(made) > 0 {
		if err := l.fill(r, made); err != nil {
			return err
		}
	}
	return l.nextVersion()
}

func (l *Loader) nextVersion() error {
	versions, err := l.versions()
	if err != nil {
		return err
	}
	l.version = 1
	if len(versions) > 0 {
		l.version = versions[0] + 1
	}
	return nil
}

// plan says which running maps this build goes on with, and which it has to make
// again because their layout changed.
func (l *Loader) plan(r *running) (use map[string]*ebpf.Map, made []string, err error) {
	use = map[string]*ebpf.Map{}
	if r.program == nil {
		return use, nil, nil
	}
	reset := false
	for name, spec := range l.build.spec.Maps {
		old := r.maps[kernelName(name)]
		switch {
		case isData(name):
			continue
		case old == nil:
			made = append(made, name)
			continue
		case name == flowsName && old.MaxEntries() != spec.MaxEntries:
			if l.config.FlowTableSize != 0 {
				l.config.Log.Warn("the running flow table keeps its size", "size", old.MaxEntries(), "configured", l.config.FlowTableSize)
			}
			spec.MaxEntries = old.MaxEntries()
		}
		why := compatible(spec, old)
		switch {
		case why == nil:
			use[name] = old
		case !errors.Is(why, ebpf.ErrMapIncompatible):
			return nil, nil, why
		case name == flowsName && !l.config.ResetFlows:
			return nil, nil, fmt.Errorf("%w: %w", ErrFlowTable, why)
		default:
			l.config.Log.Info("a table changed its layout and is made again", "map", name, "why", why)
			made = append(made, name)
			reset = reset || name == flowsName
		}
	}
	if reset {
		// Counts of flows that are no more would never come down.
		for _, name := range []string{"quotas", "backend_load"} {
			if use[name] != nil {
				delete(use, name)
				made = append(made, name)
			}
		}
	}
	slices.Sort(made)
	return use, made, nil
}

// fill has the maps that were made again filled; the running router still works
// with its own.
func (l *Loader) fill(r *running, made []string) error {
	if l.config.Fill == nil {
		return fmt.Errorf("tables %s changed their layout, and nothing was given to fill them", strings.Join(made, ", "))
	}
	old := routerMaps(r.maps)
	if err := l.config.Fill(&old, &l.maps); err != nil {
		return fmt.Errorf("fill tables %s: %w; the running router goes on", strings.Join(made, ", "), err)
	}
	return l.config.step("filled")
}

// takeRunning goes on with the running program, in its own version directory if
// that is still there.
func (l *Loader) takeRunning(r *running) error {
	l.router, r.program = r.program, nil
	l.all[buildMap] = r.maps[buildMap]
	delete(r.maps, buildMap)
	signed, err := mapID(l.all[buildMap])
	if err != nil {
		return err
	}
	versions, err := l.versions()
	if err != nil {
		return err
	}
	for _, version := range versions {
		dir := l.versionDir(version)
		if pinnedProgram(filepath.Join(dir, routerName)) == r.id || pinnedMap(filepath.Join(dir, buildMap)) == signed {
			l.version = version
			return nil
		}
	}
	return l.nextVersion()
}

// repin writes every pin that is missing or another object's.
func (l *Loader) repin() error {
	dir := l.versionDir(l.version)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory of pins: %w", err)
	}
	for name, m := range l.all {
		if err := l.config.step("pin map"); err != nil {
			return err
		}
		id, err := mapID(m)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		if pinnedMap(path) == id {
			continue
		}
		if err := replacePin(path, func() (pinner, error) { return m.Clone() }); err != nil {
			return err
		}
	}
	// Last: it says that the version is complete.
	if err := l.config.step("pin program"); err != nil {
		return err
	}
	info, err := l.router.Info()
	if err != nil {
		return fmt.Errorf("read the router program: %w", err)
	}
	id, _ := info.ID()
	if path := filepath.Join(dir, routerName); pinnedProgram(path) != id {
		if err := replacePin(path, func() (pinner, error) { return l.router.Clone() }); err != nil {
			return err
		}
	}
	for ifindex, x := range l.links {
		if err := l.pinLink(ifindex, x); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loader) pinLink(ifindex uint32, x link.Link) error {
	info, err := x.Info()
	if err != nil {
		return fmt.Errorf("read the link of device %d: %w", ifindex, err)
	}
	path := l.linkPin(ifindex)
	if pinnedLink(path) == info.ID {
		return nil
	}
	return replacePin(path, func() (pinner, error) { return link.NewFromID(info.ID) })
}

func replacePin(path string, open func() (pinner, error)) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a pin of another object: %w", err)
	}
	copied, err := open()
	if err != nil {
		return fmt.Errorf("pin %s: %w", path, err)
	}
	return pinCopy(copied, path)
}

// updateLinks puts this build's program on every device, one after the other. The
// kernel swaps the pointer: no packet meets neither or both.
func (l *Loader) updateLinks() error {
	info, err := l.router.Info()
	if err != nil {
		return fmt.Errorf("read the router program: %w", err)
	}
	id, _ := info.ID()
	for ifindex, x := range l.links {
		on, err := x.Info()
		if err != nil {
			return fmt.Errorf("read the link of device %d: %w", ifindex, err)
		}
		if on.Program == id {
			continue
		}
		if err := l.config.step("update link"); err != nil {
			return err
		}
		if err := x.Update(l.router); err != nil {
			if isNoDevice(err) {
				continue // it went while we looked
			}
			return fmt.Errorf("put the router of this build on device %d: %w", ifindex, err)
		}
	}
	return nil
}

func (l *Loader) removeOtherVersions() error {
	versions, err := l.versions()
	if err != nil {
		return err
	}
	for _, version := range versions {
		if version == l.version {
			continue
		}
		if err := l.config.step("remove version"); err != nil {
			return err
		}
		if err := os.RemoveAll(l.versionDir(version)); err != nil {
			return fmt.Errorf("remove the pins of an older version: %w", err)
		}
	}
	return nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("read a map: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}

// The ids of what is pinned at a path, 0 if that is nothing of the kind.

func pinnedMap(path string) ebpf.MapID {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return 0
	}
	defer func() { _ = m.Close() }()
	id, _ := mapID(m)
	return id
}

func pinnedProgram(path string) ebpf.ProgramID {
	program, err := ebpf.LoadPinnedProgram(path, nil)
	if err != nil {
		return 0
	}
	defer func() { _ = program.Close() }()
	info, err := program.Info()
	if err != nil {
		return 0
	}
	id, _ := info.ID()
	return id
}

func pinnedLink(path string) link.ID {
	x, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return 0
	}
	defer func() { _ = x.Close() }()
	info, err := x.Info()
	if err != nil {
		return 0
	}
	return info.ID
}

// kernelName is a name as the kernel keeps it, cut to 15 bytes.
func kernelName(name string) string { return name[:min(len(name), unix.BPF_OBJ_NAME_LEN-1)] }

// routerMaps sorts maps into the generated struct by their names.
func routerMaps(all map[string]*ebpf.Map) (maps bpf.RouterMaps) {
	value := reflect.ValueOf(&maps).Elem()
	for i := range value.NumField() {
		name := value.Type().Field(i).Tag.Get("ebpf")
		m := all[name]
		if m == nil {
			m = all[kernelName(name)]
		}
		if m != nil {
			value.Field(i).Set(reflect.ValueOf(m))
		}
	}
	return maps
}
