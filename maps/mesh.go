package maps

import (
	"cmp"
	"fmt"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// MeshDevice leads to all other hosts. Its device must be one of Want.Ports.
type MeshDevice struct {
	Ifindex uint32
	MTU     uint16
	// Native: it is the uplink, and the host's routes and neighbours say where on its
	// link a packet goes. Else it has no link layer.
	Native bool
}

// Allocation lets clients of one network, on other hosts, reach one port of a Machine
// of this host that is of another network.
type Allocation struct {
	Client   sixpn.Network
	Network  sixpn.Network // the Machine's
	Machine  sixpn.Machine
	Protocol uint8  // ProtocolTCP or ProtocolUDP
	Port     uint16 // internal port, host byte order
}

// Compare orders by all fields.
func (a Allocation) Compare(b Allocation) int {
	return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Network, b.Network), cmp.Compare(a.Machine, b.Machine),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
}

func (a Allocation) key() bpf.RouterAllocationKey {
	return bpf.RouterAllocationKey{
		ClientNetwork: uint32(a.Client), BackendNetwork: uint32(a.Network), BackendMachine: uint32(a.Machine),
		Port: a.Port, Protocol: a.Protocol,
	}
}

// check refuses an allocation that allows nothing, or what needs none.
func (a Allocation) check() error {
	if a.Client == 0 || a.Network == 0 || a.Machine == 0 || a.Client == a.Network || a.Port == 0 ||
		a.Protocol != ProtocolTCP && a.Protocol != ProtocolUDP {
		return fmt.Errorf("maps: allocation %+v: expected two networks, a Machine, a port, and protocol %d or %d", a, ProtocolTCP, ProtocolUDP)
	}
	return nil
}

func (p *pass) wantedAllocations() map[bpf.RouterAllocationKey]Allocation {
	allocations := map[bpf.RouterAllocationKey]Allocation{}
	for _, allocation := range p.want.Allocations {
		allocations[allocation.key()] = allocation
	}
	return allocations
}

// putMeshDevice opens the way to other hosts, once its port is written.
func (p *pass) putMeshDevice() error {
	device := p.want.Mesh
	counters, ok := p.counters[device.Ifindex]
	if device.Ifindex == 0 || !ok {
		return nil
	}
	method := bpf.RouterRedirectMethodREDIRECT_EGRESS
	if device.Native {
		method = bpf.RouterRedirectMethodREDIRECT_NEIGHBOUR
	}
	return p.setMeshDevice(bpf.RouterHostDevice{Ifindex: device.Ifindex, Counters: counters, Mtu: device.MTU, Redirect: uint8(method)})
}

func (p *pass) setMeshDevice(device bpf.RouterHostDevice) error {
	return p.mesh.put(p.writer, "the mesh device", 0, device)
}

func (p *pass) putAllocations() error {
	for key, allocation := range p.wantedAllocations() {
		what := fmt.Sprintf("port %d of machine %s for network %s", allocation.Port, allocation.Machine, allocation.Client)
		if err := p.tolerate(p.allocations.put(p.writer, what, key, 0)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) removeAllocations() error {
	wanted := p.wantedAllocations()
	for key := range p.allocations.have {
		if _, ok := wanted[key]; ok {
			continue
		}
		if err := p.allocations.remove(p.writer, "an allocation", key); err != nil {
			return err
		}
	}
	return nil
}
