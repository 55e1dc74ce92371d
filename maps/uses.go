package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// TableUse is how full a table is.
type TableUse struct {
	Table string
	Used  uint32 // elements
	Max   uint32
}

// used counts the elements in use. Only Go writes these tables, so it stays true until
// the next Sync.
func (k *kernel) used() map[string]uint32 {
	used := map[string]uint32{
		tablePorts:        uint32(len(k.ports.have)),
		tablePortCounters: uint32(len(k.ports.have)), // every port has its counters
		tableMachines:     uint32(len(k.machines.have)),
		tableVIPs:         uint32(len(k.vips.have)),
		tableServices:     uint32(len(k.services.have)),
		tableRanges:       uint32(len(k.ranges.have)),
		tableAllocations:  uint32(len(k.allocations.have)),
		tableQuotas:       uint32(len(k.quotas.have)),
	}
	if k.host.have[0].Ifindex != 0 {
		used[tableHostPort] = 1
	}
	for _, element := range k.backends.all {
		if !free(element) {
			used[tableBackends]++
		}
	}
	used[tableBackendLoad] = used[tableBackends]
	for region := range k.regions() {
		used[tableMaglev] += region.length
	}
	return used
}

// Uses says how full every table is that can become full. Those that Sync writes are as
// the last Sync left them, and missing before the first. Live flows are the sum of what
// counts in the quotas of networks, for to count the flow table would be to read it.
func (t *Tables) Uses() ([]TableUse, error) {
	t.mu.Lock()
	used := t.used
	t.mu.Unlock()
	var uses []TableUse
	for _, table := range []struct {
		name string
		m    *ebpf.Map
	}{
		{tablePorts, t.maps.PortSlots}, {tablePortCounters, t.maps.PortCounters}, {tableMachines, t.maps.MachineSlots},
		{tableHostPort, t.maps.HostPort}, {tableVIPs, t.maps.Vips}, {tableServices, t.maps.Services},
		{tableRanges, t.maps.ServiceRanges}, {tableMaglev, t.maps.Maglev}, {tableBackends, t.maps.Backends},
		{tableBackendLoad, t.maps.BackendLoad}, {tableQuotas, t.maps.Quotas},
		{tableAllocations, t.maps.Allocations},
	} {
		if used != nil {
			uses = append(uses, TableUse{table.name, used[table.name], table.m.MaxEntries()})
		}
	}
	drops, err := t.portDropPairs()
	if err != nil {
		return nil, err
	}
	flows, err := t.liveFlows()
	if err != nil {
		return nil, err
	}
	return append(uses,
		TableUse{tablePortDrops, drops, t.maps.PortDrops.MaxEntries()},
		TableUse{bpf.RouterMapFlows, flows, t.maps.Flows.MaxEntries()},
	), nil
}

func (t *Tables) liveFlows() (uint32, error) {
	uses, err := t.QuotaUses()
	var flows uint32
	for _, use := range uses {
		if use.Machine == 0 {
			flows += use.Used
		}
	}
	return flows, err
}

// portDropPairs counts the pairs of device and reason that have happened.
func (t *Tables) portDropPairs() (uint32, error) {
	const chunk = 4096
	var (
		count  uint32
		cursor ebpf.MapBatchCursor
		keys   = make([]bpf.RouterPortDropKey, chunk)
		values = make([]uint64, chunk*ebpf.MustPossibleCPU())
	)
	for {
		n, err := t.maps.PortDrops.BatchLookup(&cursor, keys, values, nil)
		count += uint32(n)
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist): // the end
			return count, nil
		case err != nil:
			return 0, fmt.Errorf("maps: read table %q: %w", tablePortDrops, err)
		}
	}
}

// FlowCounts says what became of the flows that were judged since the tables were made.
func (t *Tables) FlowCounts() (FlowCounts, error) {
	pass, _, err := lookup[bpf.RouterExpiryPass](t.maps.Expiry, bpf.RouterMapExpiry, uint32(0))
	return FlowCounts{pass.Seen, pass.Expired, pass.Gone}, err
}
