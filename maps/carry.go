package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// Carry copies what is in the tables of a running router to the ones that a newer
// build made in their place, larger ones for instance: flows name backends by index and
// generation, so these, and all that leads to them, must stay what they are. A table
// that both share is left alone. Elements of both are taken to be laid out alike; one whose
// elements changed their size cannot be copied here, and is left to Sync, which must follow
// in any case.
//
// Live flows that begin or end between Carry and the change of programs are not in counts
// that are copied here. Per-CPU counters begin at zero.
func Carry(from, to *bpf.RouterMaps) error {
	// The counts are of the flows: a flow table that begins anew begins at zero.
	flows, err := sameMap(from.Flows, to.Flows)
	if err != nil {
		return err
	}
	if flows {
		err = errors.Join(
			carry[uint32, bpf.RouterLoad](tableBackendLoad, from.BackendLoad, to.BackendLoad),
			carry[bpf.RouterMachineKey, bpf.RouterQuota](tableQuotas, from.Quotas, to.Quotas),
		)
	}
	return errors.Join(err,
		carry[uint32, bpf.RouterBackend](tableBackends, from.Backends, to.Backends),
		carry[uint32, uint32](tableMaglev, from.Maglev, to.Maglev),
		carry[bpf.RouterServiceKey, bpf.RouterService](tableServices, from.Services, to.Services),
		carry[bpf.RouterServiceRangeKey, bpf.RouterService](tableRanges, from.ServiceRanges, to.ServiceRanges),
		carry[bpf.RouterVipKey, uint32](tableVIPs, from.Vips, to.Vips),
		carry[bpf.RouterAllocationKey, uint32](tableAllocations, from.Allocations, to.Allocations),
	)
}

func carry[K, V any](name string, from, to *ebpf.Map) error {
	if from == nil || to == nil || from.KeySize() != to.KeySize() || from.ValueSize() != to.ValueSize() || from.Type() != to.Type() {
		return nil
	}
	same, err := sameMap(from, to)
	if same || err != nil {
		return err
	}
	const chunk = 4096
	keys, values := make([]K, chunk), make([]V, chunk)
	var cursor ebpf.MapBatchCursor
	for copied := uint32(0); ; {
		n, err := from.BatchLookup(&cursor, keys, values, nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return fmt.Errorf("maps: read table %q of the running router: %w", name, err)
		}
		if from.Type() == ebpf.Array { // of which the new one may have fewer elements
			n = min(n, int(to.MaxEntries()-copied))
		}
		if n > 0 {
			if _, err := to.BatchUpdate(keys[:n], values[:n], nil); err != nil {
				return fmt.Errorf("maps: copy table %q of the running router, %d elements from %d on: %w", name, n, copied, err)
			}
		}
		copied += uint32(n)
		if end || n == 0 {
			return nil
		}
	}
}

func sameMap(a, b *ebpf.Map) (bool, error) {
	var ids [2]ebpf.MapID
	for i, m := range []*ebpf.Map{a, b} {
		info, err := m.Info()
		if err != nil {
			return false, fmt.Errorf("maps: look at %s: %w", m, err)
		}
		id, ok := info.ID()
		if !ok {
			return false, fmt.Errorf("maps: the kernel does not say which map %s is", m)
		}
		ids[i] = id
	}
	return ids[0] == ids[1], nil
}
