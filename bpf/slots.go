package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Places of port_slots and machine_slots, as types.h has them.
const (
	Slots     = 16384
	SlotTries = 16
)

// ErrSlotsFull says that every place an element may have is taken.
var ErrSlotsFull = errors.New("every place of the element is taken")

// SlotTable is the Go side of port_slots or machine_slots: an array with open
// addressing. It has one writer. V holds its own key; its zero value is no element.
type SlotTable[K comparable, V comparable] struct {
	m    *ebpf.Map
	home func(K) uint32
	key  func(V) K
	hide func(V) V // the same element without its key
}

// PortSlots wraps the map port_slots. The key is the ifindex.
func PortSlots(m *ebpf.Map) SlotTable[uint32, RouterPort] {
	return SlotTable[uint32, RouterPort]{
		m:    m,
		home: func(ifindex uint32) uint32 { return ifindex },
		key:  func(p RouterPort) uint32 { return p.Ifindex },
		hide: func(p RouterPort) RouterPort { p.Ifindex = 0; return p },
	}
}

// MachineSlots wraps the map machine_slots. The key is network and machine.
func MachineSlots(m *ebpf.Map) SlotTable[RouterMachineKey, RouterMachine] {
	return SlotTable[RouterMachineKey, RouterMachine]{
		m:    m,
		home: machineHome,
		key: func(v RouterMachine) RouterMachineKey {
			return RouterMachineKey{Network: v.Network, Machine: v.Machine}
		},
		hide: func(v RouterMachine) RouterMachine { v.Network, v.Machine = 0, 0; return v },
	}
}

// machineHome is machine_home of types.h.
func machineHome(k RouterMachineKey) uint32 {
	hash := k.Network*0x9e3779b1 ^ k.Machine*0x85ebca6b
	hash = (hash ^ hash>>15) * 0x2c1b3c6d
	return hash ^ hash>>16
}

// find returns the place that holds key, and the first that is free, or -1.
func (t SlotTable[K, V]) find(key K) (held, free int64, value V, err error) {
	var zero K
	held, free = -1, -1
	if key == zero {
		return held, free, value, fmt.Errorf("the zero key %v marks a free place of %s and cannot be used", key, t.m)
	}
	for i := uint32(0); i < SlotTries; i++ {
		slot := (t.home(key) + i) % Slots
		var v V
		if err := t.m.Lookup(slot, &v); err != nil {
			return held, free, value, fmt.Errorf("read place %d of %s: %w", slot, t.m, err)
		}
		switch t.key(v) {
		case key:
			if held < 0 {
				held, value = int64(slot), v
			}
		case zero:
			if free < 0 {
				free = int64(slot)
			}
		}
	}
	return held, free, value, nil
}

// Get returns the element of key; ok is false if there is none.
func (t SlotTable[K, V]) Get(key K) (value V, ok bool, err error) {
	held, _, value, err := t.find(key)
	return value, held >= 0, err
}

// Put writes value, under the key that it holds. A packet sees the old element,
// the new one, or (only when no other place is free for the new one) none, but
// never a mixture. ErrSlotsFull if there is no place.
func (t SlotTable[K, V]) Put(value V) error {
	held, free, old, err := t.find(t.key(value))
	if err != nil {
		return err
	}
	switch {
	case held >= 0 && old == value:
		return t.clearOthers(t.key(value), uint32(held))
	case free < 0 && held < 0:
		return fmt.Errorf("%w: %v in %s", ErrSlotsFull, t.key(value), t.m)
	case free < 0:
		if err := t.clear(uint32(held), old); err != nil {
			return err
		}
		free = held
	}
	if err := t.m.Put(uint32(free), t.hide(value)); err != nil {
		return fmt.Errorf("write place %d of %s: %w", free, t.m, err)
	}
	if err := t.m.Put(uint32(free), value); err != nil {
		return fmt.Errorf("write place %d of %s: %w", free, t.m, err)
	}
	return t.clearOthers(t.key(value), uint32(free))
}

// clearOthers clears every other place of key: the old one, and a double that a
// writer left which died between two writes.
func (t SlotTable[K, V]) clearOthers(key K, keep uint32) error {
	for i := uint32(0); i < SlotTries; i++ {
		slot := (t.home(key) + i) % Slots
		var v V
		if slot == keep {
			continue
		}
		if err := t.m.Lookup(slot, &v); err != nil {
			return fmt.Errorf("read place %d of %s: %w", slot, t.m, err)
		}
		if t.key(v) == key {
			if err := t.clear(slot, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete removes every element of key. It is no error if there is none.
func (t SlotTable[K, V]) Delete(key K) error {
	for {
		held, _, old, err := t.find(key)
		if err != nil || held < 0 {
			return err
		}
		if err := t.clear(uint32(held), old); err != nil {
			return err
		}
	}
}

func (t SlotTable[K, V]) clear(slot uint32, old V) error {
	var zero V
	for _, v := range []V{t.hide(old), zero} {
		if err := t.m.Put(slot, v); err != nil {
			return fmt.Errorf("clear place %d of %s: %w", slot, t.m, err)
		}
	}
	return nil
}

// All returns every element. Of two with one key, left by a writer that died
// between them, a packet uses the one that is returned.
func (t SlotTable[K, V]) All() (map[K]V, error) {
	var (
		zero   K
		all    = map[K]V{}
		cursor ebpf.MapBatchCursor
		keys   = make([]uint32, Slots)
		values = make([]V, Slots)
	)
	for {
		n, err := t.m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read %s: %w", t.m, err)
		}
		for _, v := range values[:n] {
			k := t.key(v)
			if k == zero {
				continue
			}
			if _, twice := all[k]; twice {
				if v, _, err = t.Get(k); err != nil {
					return nil, err
				}
			}
			all[k] = v
		}
		if err != nil {
			return all, nil
		}
	}
}
