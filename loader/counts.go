package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// counts are the fields of a table that the programs count in, while an agent looks away.
var counts = map[string][]string{loadName: {".live", ".total"}, "quotas": {".used", ".refused"}}

// generationField tells whose counts an element has; tables without it never change that.
const generationField = ".generation"

// carriedCounts is a table of counts as it was when it was carried over. Until the last
// device has this build's program, the one before counts on in the running table, and this
// build's in its own: what came by then is added up once it has.
type carriedCounts struct {
	*layouts
	from, to *ebpf.Map
	// then is the running table as it was carried over, in this build's layout. It is pinned
	// beside the others until all is added up: the next agent does it if this one is killed.
	then *ebpf.Map
}

func (c *carriedCounts) close() {
	_ = c.from.Close()
	_ = c.then.Close()
}

// carryCounts is carry for a table that is counted in.
func (l *Loader) carryCounts(spec *ebpf.MapSpec, from, to *ebpf.Map) error {
	layouts, err := translation(spec, from)
	if err != nil || layouts == nil {
		return err
	}
	copied := spec.Copy()
	copied.MaxEntries = to.MaxEntries()
	c := &carriedCounts{layouts: layouts, to: to}
	if c.then, err = ebpf.NewMap(copied); err != nil {
		return fmt.Errorf("make a copy of table %s: %w", spec.Name, err)
	}
	if c.from, err = from.Clone(); err != nil {
		_ = c.then.Close()
		return fmt.Errorf("open table %s again: %w", spec.Name, err)
	}
	l.carried = append(l.carried, c)
	return errors.Join(carry(spec, from, to), carry(spec, from, c.then))
}

// thenPin is how the name of a pin of carriedCounts.then begins.
const thenPin = "then_"

// resumeCounts finds what an agent that was killed has left to be added up.
func (l *Loader) resumeCounts() error {
	for name := range counts {
		then, err := ebpf.LoadPinnedMap(filepath.Join(l.versionDir(l.version), thenPin+name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open the copy of table %s: %w", name, err)
		}
		c := &carriedCounts{then: then, to: l.all[name]}
		if c.from = l.pinnedBefore(name); c.from != nil {
			c.layouts, err = translation(l.build.spec.Maps[name], c.from)
		}
		if c.layouts == nil {
			l.config.Log.Warn("the table of the build before is gone, and what it counted last with it", "table", name, "error", err)
			c.close()
			if err := os.Remove(filepath.Join(l.versionDir(l.version), thenPin+name)); err != nil {
				return fmt.Errorf("remove the pin of the copy of table %s: %w", name, err)
			}
			continue
		}
		l.carried = append(l.carried, c)
		if name == loadName {
			l.sharesFrom = l.pinnedBefore(sharesName)
		}
	}
	return nil
}

// pinnedBefore is the table of a name of the version before this one; nil: there is none.
func (l *Loader) pinnedBefore(name string) *ebpf.Map {
	versions, _ := l.versions()
	for _, version := range versions {
		if version >= l.version {
			continue
		}
		if m, err := ebpf.LoadPinnedMap(filepath.Join(l.versionDir(version), name), nil); err == nil {
			return m
		}
	}
	return nil
}

// pinCounts pins what is to be added up.
func (l *Loader) pinCounts() error {
	for _, c := range l.carried {
		path := filepath.Join(l.versionDir(l.version), thenPin+c.spec.Name)
		if pinnedMap(path) != 0 {
			continue
		}
		if err := replacePin(path, func() (pinner, error) { return c.then.Clone() }); err != nil {
			return err
		}
	}
	return nil
}

// addUp adds what was counted in the running table since it was carried over. Nobody counts
// there any more.
func (c *carriedCounts) addUp(step func(string) error) error {
	adders := map[string]*ebpf.Program{}
	defer func() {
		for _, adder := range adders {
			_ = adder.Close()
		}
	}()
	then, now := make([]byte, c.spec.ValueSize), make([]byte, c.spec.ValueSize)
	return c.each(c.from, func(key, value []byte, any bool) error {
		if !any { // an element that was never in use
			return nil
		}
		clear(then)
		if err := errors.Join(found(c.then.Lookup(key, then)), c.to.Lookup(key, now)); errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil // its client is gone
		} else if err != nil {
			return fmt.Errorf("read table %s: %w", c.spec.Name, err)
		}
		if bytes.Equal(then, value) {
			return nil
		}
		if where, ok := c.now[generationField]; ok && where.number(now) != where.number(value) {
			return nil // Fill gave it to another backend
		}
		for _, name := range counts[c.spec.Name] {
			where := c.now[name]
			difference := where.number(value) - where.number(then)
			if difference == 0 {
				continue
			}
			if adders[name] == nil {
				adder, err := newAdder(c.to, where)
				if err != nil {
					return err
				}
				adders[name] = adder
			}
			request := append(append(make([]byte, 0, adderContext), key...), make([]byte, adderKey-len(key))...)
			if _, err := adders[name].Run(&ebpf.RunOptions{Context: binary.NativeEndian.AppendUint64(request, difference)}); err != nil {
				return fmt.Errorf("add to table %s: %w", c.spec.Name, err)
			}
		}
		if err := c.then.Put(key, value); err != nil { // not a second time
			return fmt.Errorf("write the copy of table %s: %w", c.spec.Name, err)
		}
		return step("added up")
	})
}

// found is the error of a look-up whose element may be missing: it is zero then.
func found(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// number reads a field of 4 or 8 bytes.
func (s span) number(value []byte) uint64 {
	if s.size == 8 {
		return binary.NativeEndian.Uint64(value[s.offset:])
	}
	return uint64(binary.NativeEndian.Uint32(value[s.offset:]))
}

// The context of an adder: a key, padded to 16 bytes, and the number to add, 8 bytes.
const (
	adderKey     = 16
	adderContext = adderKey + 8
)

// newAdder makes a program that adds to a field of an element, in one step, as packets do:
// a system call that writes the element would undo what they count meanwhile.
func newAdder(m *ebpf.Map, where span) (*ebpf.Program, error) {
	size := asm.Word
	if where.size == 8 {
		size = asm.DWord
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sixpn_add", Type: ebpf.Syscall, Flags: unix.BPF_F_SLEEPABLE, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, adderKey, asm.DWord),
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.StoreMem(asm.RFP, -adderKey, asm.R2, asm.DWord),
			asm.LoadMem(asm.R2, asm.R1, 8, asm.DWord),
			asm.StoreMem(asm.RFP, -8, asm.R2, asm.DWord),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -adderKey),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "none"),
			asm.AddAtomic.Mem(asm.R0, asm.R6, size, int16(where.offset)),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("none"),
			asm.Return(),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("load what adds to %s: %w", m, err)
	}
	return program, nil
}

// settleCounts follows the change of programs: no packet is counted in the running tables
// any more. Only now do flows begin again by shares whose counts were carried over: before,
// both programs would have used up the same ones.
func (l *Loader) settleCounts() error {
	if len(l.carried) == 0 {
		return nil
	}
	if err := l.config.step("settle counts"); err != nil {
		return err
	}
	if err := graceOfPackets(); err != nil {
		return err
	}
	for _, c := range l.carried {
		if err := c.addUp(l.config.step); err != nil {
			return err
		}
	}
	for _, c := range l.carried {
		if c.spec.Name == loadName && l.sharesFrom != nil {
			if err := l.carryShares(c); err != nil {
				return err
			}
		}
	}
	if err := l.config.step("settled"); err != nil {
		return err
	}
	for _, c := range l.carried {
		if err := os.Remove(filepath.Join(l.versionDir(l.version), thenPin+c.spec.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the pin of the copy of table %s: %w", c.spec.Name, err)
		}
	}
	l.closeCounts()
	return nil
}

func (l *Loader) closeCounts() {
	for _, c := range l.carried {
		c.close()
	}
	_ = l.sharesFrom.Close()
	l.carried, l.sharesFrom = nil, nil
}

// carryShares carries the shares of elements over that are the same backends' still.
func (l *Loader) carryShares(loads *carriedCounts) error {
	shares, err := translation(l.build.spec.Maps[sharesName], l.sharesFrom)
	if err != nil || shares == nil {
		return err
	}
	where := loads.now[generationField]
	generations, generation := map[string]uint64{}, make([]byte, loads.spec.ValueSize)
	err = loads.each(loads.from, func(key, value []byte, any bool) error {
		if any {
			generations[string(key)] = where.number(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return shares.each(l.sharesFrom, func(key, value []byte, any bool) error {
		if !any {
			return nil
		}
		if err := l.all[loadName].Lookup(key, generation); err != nil || where.number(generation) != generations[string(key)] {
			return err
		}
		if err := l.all[sharesName].Put(key, value); err != nil {
			return fmt.Errorf("carry a share over: %w", err)
		}
		return nil
	})
}

// graceOfPackets returns when every program that ran when it was called has ended. The
// kernel waits for that wherever it changes a map in a map, so that whoever did it can rely
// on it (maybe_wait_bpf_programs in kernel/bpf/syscall.c); membarrier(2) would do as well,
// but not on hosts with nohz_full.
func graceOfPackets() error {
	one := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(one)
	if err != nil {
		return fmt.Errorf("wait for packets under way: %w", err)
	}
	defer func() { _ = inner.Close() }()
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: one})
	if err != nil {
		return fmt.Errorf("wait for packets under way: %w", err)
	}
	defer func() { _ = outer.Close() }()
	if err := outer.Put(uint32(0), inner); err != nil {
		return fmt.Errorf("wait for packets under way: %w", err)
	}
	return nil
}
