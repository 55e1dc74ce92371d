package maps

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// Fence keeps the flows that clients of another host have with a backend of this host from
// passing: their places are given to others. It outlives the agent.
type Fence struct {
	Client   sixpn.Host
	Network  sixpn.Network // of the backend
	Machine  sixpn.Machine
	Protocol uint8
	Port     uint16 // internal port, host byte order
}

// Compare orders by all fields.
func (f Fence) Compare(other Fence) int {
	return cmp.Or(cmp.Compare(f.Client, other.Client), cmp.Compare(f.Network, other.Network), cmp.Compare(f.Machine, other.Machine),
		cmp.Compare(f.Protocol, other.Protocol), cmp.Compare(f.Port, other.Port))
}

func (f Fence) key() bpf.RouterFenceKey {
	return bpf.RouterFenceKey{
		ClientHost: uint32(f.Client), Network: uint32(f.Network), Machine: uint32(f.Machine), Port: f.Port, Protocol: f.Protocol,
	}
}

// Fence is the one that a seat's flows of a host's clients meet at the backend.
func (s Seat) Fence(client sixpn.Host) Fence {
	return Fence{client, s.Backend.Network, s.Machine, s.Protocol, s.Port}
}

// Fences reads all fences there are.
func (t *Tables) Fences() (all []Fence, err error) {
	var key bpf.RouterFenceKey
	var value uint32
	entries := t.maps.Fences.Iterate()
	for entries.Next(&key, &value) {
		all = append(all, Fence{
			sixpn.Host(key.ClientHost), sixpn.Network(key.Network), sixpn.Machine(key.Machine), key.Protocol, key.Port,
		})
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("maps: read table %q: %w", tableFences, err)
	}
	return all, nil
}

// SetFences adds fences, which hold when it returns, or takes some away. After an error
// some of it may be done, which the same again completes.
func (t *Tables) SetFences(add, remove []Fence) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, fence := range add {
		if err := t.maps.Fences.Put(fence.key(), uint32(0)); err != nil {
			return fmt.Errorf("maps: write a fence for machine %s of network %s to table %q, which holds up to %d: %w",
				fence.Machine, fence.Network, tableFences, t.maps.Fences.MaxEntries(), err)
		}
	}
	for _, fence := range remove {
		if err := t.maps.Fences.Delete(fence.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("maps: remove a fence from table %q: %w", tableFences, err)
		}
	}
	var first bpf.RouterFenceKey
	any := uint32(1)
	if err := t.maps.Fences.NextKey(nil, &first); errors.Is(err, ebpf.ErrKeyNotExist) {
		any = 0
	} else if err != nil {
		return fmt.Errorf("maps: read table %q: %w", tableFences, err)
	}
	if err := t.maps.Fenced.Put(uint32(0), any); err != nil {
		return fmt.Errorf("maps: write table %q: %w", tableFenced, err)
	}
	return nil
}
