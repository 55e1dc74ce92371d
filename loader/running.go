package loader

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

const linksDir = "links"

// running is the router that was found.
type running struct {
	programs  map[string]*ebpf.Program // those of one build, by name; none: there is no router
	maps      map[string]*ebpf.Map     // by the name that the kernel keeps
	signature signature
}

func (r *running) found() bool { return len(r.programs) > 0 }

func (r *running) close() {
	for _, program := range r.programs {
		_ = program.Close()
	}
	for _, m := range r.maps {
		_ = m.Close()
	}
}

// adoptLinks opens every pinned link. One whose ifindex reads 0 belongs to a
// device that is gone: its pin is removed.
func (l *Loader) adoptLinks() error {
	dir := filepath.Join(l.config.PinRoot, linksDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pinned links: %w", err)
	}
	elsewhere := 0
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		pinned, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("open %s: %w; remove it if it is no pin of sixpn", path, err)
		}
		ifindex, here, err := l.device(pinned)
		switch {
		case err != nil:
			_ = pinned.Close()
			return fmt.Errorf("read %s: %w", path, err)
		case ifindex == 0 || l.links[ifindex] != nil:
			l.config.Log.Info("removing the link of a device that is gone", "pin", path)
			err := pinned.Unpin()
			_ = pinned.Close()
			if err != nil {
				return fmt.Errorf("unpin %s: %w", path, err)
			}
		case !here:
			elsewhere++
			_ = pinned.Close()
			l.config.Log.Warn("a device of this agent is in another network namespace; its link stays as it is", "pin", path)
		default:
			l.links[ifindex] = pinned
			if l.kinds[ifindex], err = kindOf(pinned); err != nil {
				return err
			}
		}
	}
	if elsewhere > 0 && len(l.links) == 0 {
		return fmt.Errorf("the %d devices of agent %q are in another network namespace: start it there, "+
			"or remove them first (sixpn agent reset)", elsewhere, l.config.Name)
	}
	return nil
}

// device reads which device a link is on (0: none any more), and whether that
// device is in our namespace: an ifindex means nothing without it.
func (l *Loader) device(x link.Link) (ifindex uint32, here bool, err error) {
	info, err := x.Info()
	if err != nil {
		return 0, false, err
	}
	tcx := info.TCX()
	if tcx == nil {
		return 0, false, errors.New("it is no tcx link")
	}
	if tcx.Ifindex == 0 {
		return 0, false, nil
	}
	err = l.in(func() error {
		attached, err := attachedTo(tcx.Ifindex)
		for _, program := range attached {
			if id, ok := program.LinkID(); ok && id == info.ID {
				here = true
			}
		}
		return err
	})
	return tcx.Ifindex, here, err
}

// attachedTo lists the tcx programs of a device; none if there is no such device.
func attachedTo(ifindex uint32) ([]link.AttachedProgram, error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: int(ifindex), Attach: ebpf.AttachTCXIngress})
	if isNoDevice(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the tcx programs of device %d: %w", ifindex, err)
	}
	return result.Programs, nil
}

// forgetGone drops links whose device is gone, and their pins.
func (l *Loader) forgetGone() {
	for ifindex, x := range l.links {
		info, err := x.Info()
		if err != nil || info.TCX() == nil || info.TCX().Ifindex != 0 {
			continue
		}
		if err := os.Remove(l.linkPin(ifindex)); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.config.Log.Warn("cannot remove the pin of a device that is gone", "error", err)
		}
		_ = x.Close()
		delete(l.links, ifindex)
		delete(l.kinds, ifindex)
	}
	for ifindex, x := range l.xdp {
		if info, err := x.Info(); err == nil && info.XDP() != nil && info.XDP().Ifindex == 0 {
			l.forgetXDP(ifindex)
		}
	}
}

// allLinks are those of both kinds.
func (l *Loader) allLinks() iter.Seq[link.Link] {
	return func(yield func(link.Link) bool) {
		for _, links := range []map[uint32]link.Link{l.links, l.xdp} {
			for _, x := range links {
				if !yield(x) {
					return
				}
			}
		}
	}
}

// kindOf is the name of the program on a link: a newer build's of the same name takes
// its place.
func kindOf(x link.Link) (string, error) {
	program, err := programOn(x)
	if err != nil {
		return "", err
	}
	defer func() { _ = program.Close() }()
	name, err := nameOf(program)
	if err == nil && name != meshName && name != uplinkName {
		name = routerName
	}
	return name, err
}

func nameOf(program *ebpf.Program) (string, error) {
	info, err := program.Info()
	if err != nil {
		return "", fmt.Errorf("read the running program: %w", err)
	}
	return info.Name, nil
}

func programOn(x link.Link) (*ebpf.Program, error) {
	info, err := x.Info()
	if err != nil {
		return nil, fmt.Errorf("read a link: %w", err)
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return nil, fmt.Errorf("open the running program %d: %w", info.Program, err)
	}
	return program, nil
}

func (l *Loader) linkPin(ifindex uint32) string {
	return filepath.Join(l.config.PinRoot, linksDir, strconv.FormatUint(uint64(ifindex), 10))
}

// findRunning finds the programs that tell the truth: those of the build of the newest
// one on a device (an upgrade that was cut short leaves two), and where there is no
// device the newest complete version of the pins.
func (l *Loader) findRunning() (*running, error) {
	var newest *ebpf.Program
	var newestLoaded time.Duration
	for x := range l.allLinks() {
		program, err := programOn(x)
		if err != nil {
			return nil, err
		}
		loaded, err := loadTime(program)
		if err != nil {
			return nil, err
		}
		if newest != nil && loaded <= newestLoaded {
			_ = program.Close()
			continue
		}
		if newest != nil {
			_ = newest.Close()
		}
		newest, newestLoaded = program, loaded
	}
	if newest == nil {
		versions, err := l.versions()
		if err != nil {
			return nil, err
		}
		for _, version := range versions {
			program, err := ebpf.LoadPinnedProgram(filepath.Join(l.versionDir(version), routerName), nil)
			if errors.Is(err, os.ErrNotExist) {
				continue // not complete
			}
			if err != nil {
				return nil, fmt.Errorf("open the pinned program of version %d: %w", version, err)
			}
			newest = program
			break
		}
	}
	r, err := inspect(newest)
	if err != nil {
		return nil, err
	}
	if err := l.findOthers(r); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// findOthers finds the other programs of the running build, on a device or pinned. One
// that is not found is made anew, with all others.
func (l *Loader) findOthers(r *running) error {
	signed := r.maps[buildMap]
	if signed == nil {
		return nil
	}
	id, err := mapID(signed)
	if err != nil {
		return err
	}
	take := func(program *ebpf.Program) error {
		name, err := nameOf(program)
		if err != nil {
			return err
		}
		info, err := program.Info()
		if err != nil {
			return fmt.Errorf("read the running program: %w", err)
		}
		ids, _ := info.MapIDs()
		if r.programs[name] != nil || !slices.Contains(onDevices, name) || !slices.Contains(ids, id) {
			return program.Close()
		}
		r.programs[name] = program
		return nil
	}
	for x := range l.allLinks() {
		program, err := programOn(x)
		if err != nil {
			return err
		}
		if err := take(program); err != nil {
			return err
		}
	}
	versions, err := l.versions()
	if err != nil {
		return err
	}
	for _, version := range versions {
		for _, name := range onDevices {
			program, err := ebpf.LoadPinnedProgram(filepath.Join(l.versionDir(version), name), nil)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("open the pinned program %s of version %d: %w", name, version, err)
			}
			if err := take(program); err != nil {
				return err
			}
		}
	}
	return nil
}

func loadTime(program *ebpf.Program) (time.Duration, error) {
	info, err := program.Info()
	if err != nil {
		return 0, fmt.Errorf("read the running program: %w", err)
	}
	loaded, _ := info.LoadTime()
	return loaded, nil
}

// inspect takes a program's maps by its map ids. It takes the program over.
func inspect(program *ebpf.Program) (*running, error) {
	r := &running{programs: map[string]*ebpf.Program{}, maps: map[string]*ebpf.Map{}}
	if program == nil {
		return r, nil
	}
	r.programs[""] = program // until its name is read
	info, err := program.Info()
	if err != nil {
		r.close()
		return nil, fmt.Errorf("read the running program: %w", err)
	}
	r.programs = map[string]*ebpf.Program{info.Name: program}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("open map %d of the running program: %w", id, err)
		}
		about, err := m.Info()
		if err != nil {
			_ = m.Close()
			r.close()
			return nil, fmt.Errorf("read map %d of the running program: %w", id, err)
		}
		if isData(about.Name) || r.maps[about.Name] != nil {
			_ = m.Close()
			continue
		}
		r.maps[about.Name] = m
	}
	if signed := r.maps[buildMap]; signed != nil {
		if r.signature, err = readSignature(signed); err != nil {
			r.close()
			return nil, fmt.Errorf("read the signature of the running program: %w", err)
		}
	}
	return r, nil
}

// owner says which agent a program belongs to, "" if it is none of sixpn's, and its name.
func owner(id ebpf.ProgramID) (agent, name string, err error) {
	program, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("open program %d: %w", id, err)
	}
	r, err := inspect(program)
	if err != nil {
		return "", "", err
	}
	defer r.close()
	for name = range r.programs { // there is one
	}
	return r.signature.agent(), name, nil
}
