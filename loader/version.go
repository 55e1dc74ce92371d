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

// takeRunning goes on with the running program, in its own version directory if
// that is still there.
func (l *Loader) takeRunning(r *running) error {
	l.programs, r.programs = r.programs, map[string]*ebpf.Program{}
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
		if pinnedMap(filepath.Join(dir, buildMap)) == signed {
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
	if err := l.pinCounts(); err != nil {
		return err
	}
	for _, name := range onDevices {
		if err := l.config.step("pin program"); err != nil {
			return err
		}
		info, err := l.programs[name].Info()
		if err != nil {
			return fmt.Errorf("read program %s: %w", name, err)
		}
		id, _ := info.ID()
		path := filepath.Join(dir, name)
		if pinnedProgram(path) == id {
			continue
		}
		if err := replacePin(path, func() (pinner, error) { return l.programs[name].Clone() }); err != nil {
			return err
		}
	}
	for ifindex, x := range l.links {
		if err := pinLink(l.linkPin(ifindex), x); err != nil {
			return err
		}
	}
	for ifindex, x := range l.xdp {
		if err := pinLink(l.xdpPin(ifindex), x); err != nil {
			return err
		}
	}
	return nil
}

func pinLink(path string, x link.Link) error {
	info, err := x.Info()
	if err != nil {
		return fmt.Errorf("read the link to be pinned at %s: %w", path, err)
	}
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
