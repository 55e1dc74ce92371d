package maps

import (
	"cmp"
	"errors"
	"fmt"
	stdmaps "maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// Drops counts dropped packets by reason since the tables were made, all CPUs
// together. Every reason of this build is in it.
func (t *Tables) Drops() (map[bpf.DropReason]uint64, error) {
	counts := map[bpf.DropReason]uint64{}
	for _, reason := range bpf.DropReasons() {
		var perCPU []uint64
		if err := t.maps.Drops.Lookup(uint32(reason), &perCPU); err != nil {
			return nil, fmt.Errorf("maps: read table %q: reason %s: %w", bpf.RouterMapDrops, reason, err)
		}
		counts[reason] = sum(perCPU)
	}
	return counts, nil
}

func sum(values []uint64) uint64 {
	var total uint64
	for _, value := range values {
		total += value
	}
	return total
}

// PortCounts are the packets that went on, and their bytes, of a port since it was
// added, as the device sees them: Rx is what it sent to the router. Bytes are those of
// frames, each with an Ethernet header, also where the device has none.
type PortCounts struct {
	Port
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
	Dropped            uint64 // packets that came in by it and did not go on
}

// PortCounters reads the counters of every port, by ifindex.
func (t *Tables) PortCounters() ([]PortCounts, error) {
	ports, err := t.portElements()
	if err != nil {
		return nil, err
	}
	perCPU, err := t.countersOf(ports)
	if err != nil {
		return nil, err
	}
	counts := make([]PortCounts, 0, len(ports))
	for _, port := range ports {
		counts = append(counts, portCounts(port, perCPU(port.Counters)))
	}
	slices.SortFunc(counts, func(a, b PortCounts) int { return cmp.Compare(a.Ifindex, b.Ifindex) })
	return counts, nil
}

// portElements are the ports, from memory where it is true: the array of places takes
// milliseconds to read however little is in it.
func (t *Tables) portElements() (map[uint32]bpf.RouterPort, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known {
		return stdmaps.Clone(t.leftPorts), nil
	}
	ports := newPorts(t.maps.PortSlots)
	err := ports.read()
	return ports.have, err
}

// countersOf reads the counters that ports use, which are the lowest, in a few calls
// instead of one a port.
func (t *Tables) countersOf(ports map[uint32]bpf.RouterPort) (func(index uint32) []bpf.RouterCounters, error) {
	used := uint32(0)
	for _, port := range ports {
		used = max(used, port.Counters+1)
	}
	cpus := ebpf.MustPossibleCPU()
	keys, values := make([]uint32, used), make([]bpf.RouterCounters, int(used)*cpus)
	var cursor ebpf.MapBatchCursor
	for got := 0; got < int(used); {
		n, err := t.maps.PortCounters.BatchLookup(&cursor, keys[got:], values[got*cpus:], nil)
		got += n
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || n == 0 {
			return nil, fmt.Errorf("maps: read table %q: %d of %d elements: %w", tablePortCounters, got, used, err)
		}
	}
	return func(index uint32) []bpf.RouterCounters {
		return values[int(index)*cpus : (int(index)+1)*cpus]
	}, nil
}

func portCounts(port bpf.RouterPort, perCPU []bpf.RouterCounters) PortCounts {
	count := PortCounts{Port: Port{
		Ifindex:   port.Ifindex,
		Kind:      bpf.RouterPortKind(port.Kind),
		Network:   sixpn.Network(port.Network),
		Host:      sixpn.Host(port.Host),
		Machine:   sixpn.Machine(port.Machine),
		MTU:       port.Mtu,
		Peer:      port.Redirect == redirect(true, false),
		RouterMAC: port.Mac,
	}}
	for _, cpu := range perCPU {
		count.RxPackets += cpu.RxPackets
		count.RxBytes += cpu.RxBytes
		count.TxPackets += cpu.TxPackets
		count.TxBytes += cpu.TxBytes
		count.Dropped += cpu.Dropped
	}
	return count
}

// ByXDP says whether packets of other hosts for a Machine are redirected to its device by
// XDP now. What cannot be read is no: then they go by tcx.
func (t *Tables) ByXDP(network sixpn.Network, machine sixpn.Machine) bool {
	return ByXDP(t.maps, network, machine)
}

// ByXDP is Tables.ByXDP of tables that are not open; they may lack some.
func ByXDP(m *bpf.RouterMaps, network sixpn.Network, machine sixpn.Machine) bool {
	if m.MachineSlots == nil {
		return false
	}
	element, ok, err := bpf.MachineSlots(m.MachineSlots).Get(machineKey(network, machine))
	return err == nil && ok && element.Redirect == redirect(true, true)
}

// PortDrops counts the drops of every device by reason, only pairs that happened. A
// device need not be a port: its reason is unknown_port then.
func (t *Tables) PortDrops() (map[uint32]map[bpf.DropReason]uint64, error) {
	counts := map[uint32]map[bpf.DropReason]uint64{}
	var key bpf.RouterPortDropKey
	var perCPU []uint64
	entries := t.maps.PortDrops.Iterate()
	for entries.Next(&key, &perCPU) {
		if counts[key.Ifindex] == nil {
			counts[key.Ifindex] = map[bpf.DropReason]uint64{}
		}
		counts[key.Ifindex][bpf.DropReason(key.Reason)] = sum(perCPU)
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("maps: read table %q: %w", tablePortDrops, err)
	}
	return counts, nil
}

// BackendLoad is the live flows that this host's clients have with a backend.
type BackendLoad struct {
	Backend
	Service uint32 // id, see PlacedService
	Index   uint32 // of its element in `backends`
	// Generation tells this user of the element from those before it.
	Generation uint32
	Gone       bool
	Live       uint32
	Total      uint64 // flows ever given to it
}

// Loads reads the load of every backend, by index. It reads no further than backends
// ever were, as far as that is known.
func (t *Tables) Loads() ([]BackendLoad, error) {
	limit := t.maps.Backends.MaxEntries()
	t.mu.Lock()
	if t.known {
		limit = t.highest + 1
	}
	t.mu.Unlock()
	// The backends first: one that is freed and given anew between the two reads would
	// otherwise seem to have the flows of the one before.
	backends, err := readArray[bpf.RouterBackend](t.maps.Backends, tableBackends, limit, limit)
	if err != nil {
		return nil, err
	}
	flows, err := readArray[bpf.RouterLoad](t.maps.BackendLoad, tableBackendLoad, limit, limit)
	if err != nil {
		return nil, err
	}
	var loads []BackendLoad
	for index, element := range backends {
		if free(element) {
			continue
		}
		load := backendLoad(uint32(index), element, flows[index])
		if flows[index].Generation != element.Generation {
			load.Live, load.Total = 0, 0 // another user's
		}
		loads = append(loads, load)
	}
	return loads, nil
}

func backendLoad(index uint32, element bpf.RouterBackend, load bpf.RouterLoad) BackendLoad {
	return BackendLoad{
		Backend:    backendOf(element),
		Service:    element.Service,
		Index:      index,
		Generation: element.Generation,
		Gone:       isGone(element),
		Live:       load.Live,
		Total:      load.Total,
	}
}

func backendOf(element bpf.RouterBackend) Backend {
	return Backend{
		Network: sixpn.Network(element.Network),
		Host:    sixpn.Host(element.Host),
		Machine: sixpn.Machine(element.Machine),
		Port:    element.Port,
	}
}

// QuotaUse is how much of a quota is used.
type QuotaUse struct {
	Quota
	Used    uint32 // live flows
	Refused uint64 // new flows that found it full
}

// QuotaUses reads all quotas, by network and machine.
func (t *Tables) QuotaUses() ([]QuotaUse, error) {
	quotas := newHashed[bpf.RouterMachineKey, bpf.RouterQuota](tableQuotas, t.maps.Quotas)
	if err := quotas.read(); err != nil {
		return nil, err
	}
	uses := make([]QuotaUse, 0, len(quotas.have))
	for key, quota := range quotas.have {
		uses = append(uses, QuotaUse{
			Quota:   Quota{sixpn.Network(key.Network), sixpn.Machine(key.Machine), quota.Limit},
			Used:    quota.Used,
			Refused: quota.Refused,
		})
	}
	slices.SortFunc(uses, func(a, b QuotaUse) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Machine, b.Machine))
	})
	return uses, nil
}

// PlacedService is an element of `services` or `service_ranges`. A range of ports is
// as many of them as it takes blocks of a power of two.
type PlacedService struct {
	VIP
	Protocol    uint8
	First, Last uint16
	ID          uint32 // what events and flows call it; never given out again
	Action      bpf.RouterServiceAction
	Flags       uint8
	SoftLimit   uint32
	HardLimit   uint32
	Region      uint32 // elements of its Maglev regions, 0: it has no backend
	Generation  uint32 // of the regions
}

// Services reads what the kernel balances, by address, protocol and port.
func (t *Tables) Services() ([]PlacedService, error) {
	singles := newHashed[bpf.RouterServiceKey, bpf.RouterService](tableServices, t.maps.Services)
	ranges := newHashed[bpf.RouterServiceRangeKey, bpf.RouterService](tableRanges, t.maps.ServiceRanges)
	if err := singles.read(); err != nil {
		return nil, err
	}
	if err := ranges.read(); err != nil {
		return nil, err
	}
	var placed []PlacedService
	for key, service := range singles.have {
		vip := VIP{sixpn.Network(key.Network), key.Vip}
		placed = append(placed, placedService(vip, key.Protocol, key.Port, key.Port, service))
	}
	for key, service := range ranges.have {
		vip := VIP{sixpn.Network(bigEndian(key.Network)), bigEndian(key.Vip)}
		block := prefix{uint16(key.Port[0])<<8 | uint16(key.Port[1]), key.PrefixLength - rangeKeyBits}
		placed = append(placed, placedService(vip, key.Protocol, block.first, block.last(), service))
	}
	slices.SortFunc(placed, func(a, b PlacedService) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Number, b.Number),
			cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	return placed, nil
}

func placedService(vip VIP, protocol uint8, first, last uint16, service bpf.RouterService) PlacedService {
	return PlacedService{
		VIP:        vip,
		Protocol:   protocol,
		First:      first,
		Last:       last,
		ID:         service.Id,
		Action:     bpf.RouterServiceAction(service.Action),
		Flags:      service.Flags,
		SoftLimit:  service.SoftLimit,
		HardLimit:  service.HardLimit,
		Region:     regionsOf(service).length,
		Generation: service.Generation,
	}
}
