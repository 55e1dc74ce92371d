package loader

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// load decides whether the running program is this build's, and makes this
// build's beside it if not. No device is touched yet.
func (l *Loader) load(r *running) error {
	l.opened.Adopted = r.found()
	replacements, made, err := l.plan(r)
	if err != nil {
		return err
	}
	current := r.found() && r.signature == l.build.signature && len(made) == 0
	spec := l.build.spec
	for name := range r.programs {
		if current { // only what nothing held any more, its pin being gone, is loaded again
			delete(spec.Programs, name)
			delete(l.build.xdp.Programs, name)
		}
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
	xdp, err := l.loadXDP()
	if err != nil {
		return err
	}
	defer xdp.Close()
	if current {
		err = l.takeRunning(r)
	} else {
		l.all[buildMap], err = l.build.newBuildMap()
	}
	if err != nil {
		return err
	}
	for _, program := range onDevices {
		if l.programs[program] != nil {
			continue
		}
		if l.programs[program] = collection.DetachProgram(program); l.programs[program] == nil {
			l.programs[program] = xdp.DetachProgram(program)
		}
		// Bound, even a map that a program never reads is found by it.
		for name, m := range l.all {
			if err := l.programs[program].BindMap(m); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("bind map %s to %s: %w", name, program, err)
			}
		}
	}
	if current {
		return l.resumeCounts()
	}
	l.opened.Replaced, l.opened.Made = l.opened.Adopted, made
	if len(made) > 0 {
		if err := l.fill(r, made); err != nil {
			return err
		}
	}
	return l.nextVersion()
}

// loadXDP loads the programs that share the router's maps.
func (l *Loader) loadXDP() (*ebpf.Collection, error) {
	shared := map[string]*ebpf.Map{}
	for name := range l.build.xdp.Maps {
		if !isData(name) {
			shared[name], l.build.xdp.Maps[name] = l.all[name], l.build.spec.Maps[name]
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(l.build.xdp, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, fmt.Errorf("load the XDP programs of this build: %w", err)
	}
	return collection, nil
}

// plan says which running maps this build goes on with, and which it has to make
// again because their layout changed.
func (l *Loader) plan(r *running) (use map[string]*ebpf.Map, made []string, err error) {
	use = map[string]*ebpf.Map{}
	if !r.found() {
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
		for _, name := range counting {
			if use[name] != nil {
				delete(use, name)
				made = append(made, name)
			}
		}
	}
	// Shares count against loads: two tables of these need two of those.
	if slices.Contains(made, loadName) && use[sharesName] != nil && !reset {
		delete(use, sharesName)
		made = append(made, sharesName)
	}
	slices.Sort(made)
	return use, made, nil
}

// fill carries what can be carried into the maps that were made again, and has
// them filled; the running router still works with its own.
func (l *Loader) fill(r *running, made []string) error {
	if l.config.Fill == nil {
		return fmt.Errorf("tables %s changed their layout, and nothing was given to fill them", strings.Join(made, ", "))
	}
	old := maps.Clone(r.maps)
	for _, name := range made {
		from := r.maps[kernelName(name)]
		if from == nil {
			continue
		}
		done, err := l.carryTable(name, from, made)
		if err != nil {
			return err
		}
		if done {
			old[kernelName(name)] = l.all[name]
			continue
		}
		now, err := inThisLayout(l.build.spec.Maps[name], from)
		if err != nil {
			return err
		}
		if now != from {
			defer func() { _ = now.Close() }()
			old[kernelName(name)] = now
		}
	}
	if err := l.config.step("carried"); err != nil {
		return err
	}
	before := routerMaps(old)
	if err := l.config.Fill(&before, &l.maps); err != nil {
		return fmt.Errorf("fill tables %s: %w; the running router goes on", strings.Join(made, ", "), err)
	}
	return l.config.step("filled")
}

// carryTable carries one table over, now or once the programs have changed; false: it is
// Fill's.
func (l *Loader) carryTable(name string, from *ebpf.Map, made []string) (done bool, err error) {
	spec, to := l.build.spec.Maps[name], l.all[name]
	withFlows := !slices.Contains(made, flowsName)
	switch {
	case name == sharesName && withFlows && slices.Contains(made, loadName):
		l.sharesFrom, err = from.Clone()
		return true, err
	case slices.Contains(counting, name) && withFlows:
		return true, l.carryCounts(spec, from, to)
	case slices.Contains(ofHosts, name), slices.Contains(ofFlows, name) && withFlows:
		return true, carry(spec, from, to)
	}
	return false, nil
}

// inThisLayout is a running table, or a copy of it whose fields lie as this build has them.
func inThisLayout(spec *ebpf.MapSpec, from *ebpf.Map) (*ebpf.Map, error) {
	if types, err := typesOf(from); err != nil || types == nil || sameTypes(spec, types) == nil {
		return from, err
	}
	if spec.Type != ebpf.Hash && spec.Type != ebpf.LPMTrie {
		return from, nil // of those all is made anew
	}
	wide := spec.Copy()
	wide.MaxEntries = max(spec.MaxEntries, from.MaxEntries())
	now, err := ebpf.NewMap(wide)
	if err != nil {
		return nil, fmt.Errorf("make a copy of table %s: %w", spec.Name, err)
	}
	if err := carry(spec, from, now); err != nil {
		_ = now.Close()
		return nil, err
	}
	return now, nil
}

// updateLinks puts this build's program on every device, one after the other. The
// kernel swaps the pointer: no packet meets neither or both.
func (l *Loader) updateLinks() error {
	for ifindex, x := range l.links {
		if err := l.updateLink(ifindex, x, l.kinds[ifindex]); err != nil {
			return err
		}
	}
	for ifindex, x := range l.xdp {
		if err := l.updateLink(ifindex, x, l.modes[ifindex]); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loader) updateLink(ifindex uint32, x link.Link, name string) error {
	info, err := l.programs[name].Info()
	if err != nil {
		return fmt.Errorf("read program %s: %w", name, err)
	}
	id, _ := info.ID()
	on, err := x.Info()
	if err != nil {
		return fmt.Errorf("read the link of device %d: %w", ifindex, err)
	}
	if on.Program == id {
		return nil
	}
	if err := l.config.step("update link"); err != nil {
		return err
	}
	// A device may go while we look.
	if err := x.Update(l.programs[name]); err != nil && !isNoDevice(err) {
		return fmt.Errorf("put the router of this build on device %d: %w", ifindex, err)
	}
	return nil
}
