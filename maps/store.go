package maps

import (
	"errors"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// hashed is a table that is a hash or trie of the kernel.
type hashed[K, V comparable] struct{ m *ebpf.Map }

func newHashed[K, V comparable](name string, m *ebpf.Map) table[K, V] {
	return table[K, V]{name: name, max: m.MaxEntries(), store: hashed[K, V]{m}}
}

func (h hashed[K, V]) All() (map[K]V, error) {
	const chunk = 4096
	all := map[K]V{}
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, chunk), make([]V, chunk)
	for {
		n, err := h.m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for i := range n {
			all[keys[i]] = values[i]
		}
		if err != nil { // the end
			return all, nil
		}
	}
}

func (h hashed[K, V]) Put(key K, value V, exists bool) error {
	// The flag finds a second writer out.
	if exists {
		return h.m.Update(key, value, ebpf.UpdateExist)
	}
	return h.m.Update(key, value, ebpf.UpdateNoExist)
}

func (h hashed[K, V]) Delete(key K) error {
	if err := h.m.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// slotted is a table that is an array with open addressing: its values hold their key.
type slotted[K, V comparable] struct{ bpf.SlotTable[K, V] }

func (s slotted[K, V]) Put(_ K, value V, _ bool) error { return s.SlotTable.Put(value) }

func newPorts(m *ebpf.Map) table[uint32, bpf.RouterPort] {
	return table[uint32, bpf.RouterPort]{
		name: tablePorts, max: m.MaxEntries(), store: slotted[uint32, bpf.RouterPort]{bpf.PortSlots(m)},
	}
}

func newMachines(m *ebpf.Map) table[bpf.RouterMachineKey, bpf.RouterMachine] {
	return table[bpf.RouterMachineKey, bpf.RouterMachine]{
		name: tableMachines, max: m.MaxEntries(), store: slotted[bpf.RouterMachineKey, bpf.RouterMachine]{bpf.MachineSlots(m)},
	}
}
