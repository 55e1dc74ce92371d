package loader

import (
	"encoding/binary"
	"errors"
	"fmt"

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
	then     map[string]string // values that were not zero, by key, in this build's layout
}

// carryCounts is carry for a table that is counted in.
func carryCounts(spec *ebpf.MapSpec, from, to *ebpf.Map) (*carriedCounts, error) {
	layouts, err := translation(spec, from)
	if err != nil || layouts == nil {
		return nil, err
	}
	c := &carriedCounts{layouts, from, to, map[string]string{}}
	return c, c.each(from, func(key, value []byte, any bool) error {
		if !any && to.Type() == ebpf.Array {
			return nil
		}
		c.then[string(key)] = string(value)
		if err := to.Put(key, value); err != nil {
			return fmt.Errorf("carry an element of table %s over (it holds up to %d): %w", spec.Name, to.MaxEntries(), err)
		}
		return nil
	})
}

// addUp adds what was counted in the running table since it was carried over. Nobody counts
// there any more.
func (c *carriedCounts) addUp() error {
	adders := map[string]*ebpf.Program{}
	defer func() {
		for _, adder := range adders {
			_ = adder.Close()
		}
	}()
	return c.each(c.from, func(key, value []byte, _ bool) error {
		then := []byte(c.then[string(key)])
		if len(then) == 0 {
			then = make([]byte, len(value))
		}
		if string(then) == string(value) {
			return nil
		}
		now := make([]byte, len(value))
		if err := c.to.Lookup(key, now); errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read table %s: %w", c.spec.Name, err)
		}
		if where, ok := c.now[generationField]; ok && where.number(now) != where.number(value) {
			return nil // Fill gave it to another backend
		}
		for _, name := range counts[c.spec.Name] {
			where := c.now[name]
			if difference := where.number(value) - where.number(then); difference != 0 {
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
		}
		return nil
	})
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
// both programs would have used up the same ones. An agent that is killed before it came
// here leaves no shares, which are agreed on anew, and counts that lack what those few
// milliseconds brought, until an element is another backend's.
func (l *Loader) settleCounts(r *running) error {
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
		if err := c.addUp(); err != nil {
			return err
		}
	}
	l.carried = nil
	if !l.sharesWait {
		return nil
	}
	l.sharesWait = false
	return l.carryShares(r)
}

// carryShares carries the shares of elements over that are the same backends' still.
func (l *Loader) carryShares(r *running) error {
	layouts, err := translation(l.build.spec.Maps[sharesName], r.maps[sharesName])
	if err != nil || layouts == nil {
		return err
	}
	loads, err := translation(l.build.spec.Maps[loadName], r.maps[loadName])
	if err != nil || loads == nil {
		return err
	}
	where := loads.now[generationField]
	generations, generation := map[string]uint64{}, make([]byte, l.all[loadName].ValueSize())
	err = loads.each(r.maps[loadName], func(key, value []byte, any bool) error {
		if any {
			generations[string(key)] = where.number(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return layouts.each(r.maps[sharesName], func(key, value []byte, any bool) error {
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
