package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// kernel is what the tables hold, kept true by every write of a Sync.
type kernel struct {
	ports       table[uint32, bpf.RouterPort]
	machines    table[bpf.RouterMachineKey, bpf.RouterMachine]
	host        table[uint32, bpf.RouterHostDevice] // one element, 0; so has
	mesh        table[uint32, bpf.RouterHostDevice]
	vips        table[bpf.RouterVipKey, uint32]
	services    table[bpf.RouterServiceKey, bpf.RouterService]
	ranges      table[bpf.RouterServiceRangeKey, bpf.RouterService]
	allocations table[bpf.RouterAllocationKey, uint32]
	quotas      table[bpf.RouterMachineKey, bpf.RouterQuota]
	backends    elements
}

// elements is the array `backends`. Element 0 is no backend: its service field is the
// highest service id ever given out, which must outlive the services.
type elements struct {
	all []bpf.RouterBackend // by index
}

// free says that an element is no backend's. Its generation still counts.
func free(element bpf.RouterBackend) bool { return element.Machine == 0 }

func isGone(element bpf.RouterBackend) bool { return element.Flags&flagGone != 0 }

// flagGone is BACKEND_GONE of types.h.
const flagGone = 1

func (t *Tables) readKernel() (*kernel, error) {
	k := &kernel{
		ports:       newPorts(t.maps.PortSlots),
		machines:    newMachines(t.maps.MachineSlots),
		host:        newHashed[uint32, bpf.RouterHostDevice](tableHostPort, t.maps.HostPort),
		mesh:        newHashed[uint32, bpf.RouterHostDevice](tableMesh, t.maps.MeshDevice),
		allocations: newHashed[bpf.RouterAllocationKey, uint32](tableAllocations, t.maps.Allocations),
		vips:        newHashed[bpf.RouterVipKey, uint32](tableVIPs, t.maps.Vips),
		services:    newHashed[bpf.RouterServiceKey, bpf.RouterService](tableServices, t.maps.Services),
		ranges:      newHashed[bpf.RouterServiceRangeKey, bpf.RouterService](tableRanges, t.maps.ServiceRanges),
		quotas:      newHashed[bpf.RouterMachineKey, bpf.RouterQuota](tableQuotas, t.maps.Quotas),
	}
	var err error
	limit := t.maps.Backends.MaxEntries()
	if t.known {
		limit = t.highest + 1
	}
	k.backends.all, err = readArray[bpf.RouterBackend](t.maps.Backends, tableBackends, limit, t.maps.Backends.MaxEntries())
	return k, errors.Join(err, t.readSlots(k), k.host.read(), k.mesh.read(), k.allocations.read(), k.vips.read(),
		k.services.read(), k.ranges.read(), k.quotas.read())
}

// readSlots reads the ports and Machines. These arrays take milliseconds to read
// however little is in them, and nobody else writes them: they are read after a start
// and after a Sync that did not end well, and else once a grace period, to be sure.
func (t *Tables) readSlots(k *kernel) error {
	now := t.options.Now()
	if t.known && now.Sub(t.slotsRead) < t.options.Grace {
		k.ports.have, k.machines.have = t.leftPorts, t.leftMachines
		return nil
	}
	if err := errors.Join(k.ports.read(), k.machines.read()); err != nil {
		return err
	}
	t.leftPorts, t.leftMachines, t.slotsRead = k.ports.have, k.machines.have, now
	return nil
}

// readArray reads the first elements of an array table, by index, up to limit. What it
// returns has room for size of them; those not read are zero.
func readArray[V any](m *ebpf.Map, name string, limit, size uint32) ([]V, error) {
	keys, values := make([]uint32, limit), make([]V, size)
	var cursor ebpf.MapBatchCursor
	for got := 0; got < int(limit); {
		n, err := m.BatchLookup(&cursor, keys[got:], values[got:limit], nil)
		got += n
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || n == 0 {
			return nil, fmt.Errorf("maps: read table %q: %d of %d elements: %w", name, got, limit, err)
		}
	}
	return values, nil
}

// put writes a backend.
func (e *elements) put(w *writer, m *ebpf.Map, what string, index uint32, element bpf.RouterBackend) error {
	if e.all[index] == element {
		return nil
	}
	return w.write(tableBackends, what, m.MaxEntries(), func() error {
		if err := m.Put(index, element); err != nil {
			return err
		}
		e.all[index] = element
		return nil
	})
}

// regionsOf is the piece of `maglev` that a service points to: its region, and those of
// farther backends behind it.
func regionsOf(service bpf.RouterService) span {
	return span{service.Offset, max(service.Prime, service.Length)}
}

// regions lists the pieces that services point to, each once.
func (k *kernel) regions() map[span]bool {
	spans := map[span]bool{}
	for _, service := range k.services.have {
		if service.Prime != 0 {
			spans[regionsOf(service)] = true
		}
	}
	for _, service := range k.ranges.have {
		if service.Prime != 0 {
			spans[regionsOf(service)] = true
		}
	}
	return spans
}

// lastServiceID is the highest id that was given out.
func (k *kernel) lastServiceID() uint32 {
	last := k.backends.all[0].Service
	for _, service := range k.services.have {
		last = max(last, service.Id)
	}
	for _, service := range k.ranges.have {
		last = max(last, service.Id)
	}
	return last
}
