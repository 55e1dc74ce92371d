package maps

import (
	"cmp"
	"fmt"
	"net"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// IP protocol numbers of services.
const (
	ProtocolTCP uint8 = 6
	ProtocolUDP uint8 = 17
)

// ProtocolName is a protocol of services as people write it.
func ProtocolName(protocol uint8) string {
	if protocol == ProtocolUDP {
		return "udp"
	}
	return "tcp"
}

// Want is all that the tables of a host should hold. It is a pure value; the order
// of its slices means nothing, except that of a service's backends.
type Want struct {
	Ports       []Port
	Machines    []Machine
	HostDevice  HostDevice // zero: there is none
	Mesh        MeshDevice // zero: there is none
	VIPs        []VIP
	Services    []Service
	Allocations []Allocation
	Quotas      []Quota

	// AddOnly keeps what is in the tables and not in this Want. It is for the time
	// after a start in which not every port of the host has been found again.
	AddOnly bool
}

// MAC is an Ethernet address, as it stands in a frame.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Port is a device of the router, and what its frames may say they come from.
type Port struct {
	Ifindex   uint32
	Kind      bpf.RouterPortKind
	Network   sixpn.Network
	Host      sixpn.Host
	Machine   sixpn.Machine
	MTU       uint16
	Peer      bool // a veth whose other end is in another namespace
	RouterMAC MAC  // of fe80::1 on this link
}

// Machine is a Machine or WireGuard peer of this host, and the device it is behind.
// Its device must be one of Want.Ports.
type Machine struct {
	Network   sixpn.Network
	Machine   sixpn.Machine
	Ifindex   uint32
	Kind      bpf.RouterPortKind
	MTU       uint16
	Peer      bool
	XDP       bool // and that other end takes frames of XDP
	GuestMAC  MAC
	RouterMAC MAC
}

// HostDevice leads into the private namespace. Its device must be one of Want.Ports.
type HostDevice struct {
	Ifindex   uint32
	MTU       uint16
	InsideMAC MAC // of the end inside the namespace
	RouterMAC MAC
}

// VIP is a Flycast address that exists, whatever its services.
type VIP struct {
	Network sixpn.Network // whose clients see it
	Number  uint32        // N of fdaa:<network>:0:1::N
}

// Service is what one port, or a range of ports, of a VIP leads to. Ranges of one
// VIP and protocol must not overlap. Two services that take new flows in the
// kernel's name for them (Placed.ID) stay the same as long as they share a port.
type Service struct {
	VIP
	Protocol  uint8  // ProtocolTCP or ProtocolUDP
	First     uint16 // port, host byte order
	Last      uint16 // inclusive; First for a single port
	Action    bpf.RouterServiceAction
	Flags     uint8  // CrossNetwork
	SoftLimit uint32 // live flows a backend, 0: none
	HardLimit uint32
	Backends  []Backend // take new flows, in this order
	// Farther take the new flows for which nobody nearer is below the limits: groups of
	// backends, none empty, at most MaxRegions-1. Without limits nobody needs any.
	Farther  [][]Backend
	Draining []Backend // keep the flows they have
}

// MaxRegions is how many groups of backends a service has at most, by distance:
// SERVICE_REGIONS of types.h.
const MaxRegions = 4

// groups are the backends that take new flows, nearest first.
func (s Service) groups() [][]Backend {
	if len(s.Backends) == 0 {
		return s.Farther
	}
	return append([][]Backend{s.Backends}, s.Farther...)
}

// All are all backends of a service, whatever they take.
func (s Service) All() []Backend {
	return slices.Concat(append(s.groups(), s.Draining)...)
}

// CrossNetwork marks a service whose backends are in another network than its VIP:
// SERVICE_CROSS_NETWORK of types.h.
const CrossNetwork uint8 = 1

// Shared marks a service whose limits are those of all hosts together: a host has no
// more flows with a backend than its share. SERVICE_SHARED of types_flycast.h.
const Shared uint8 = 2

// Backend is one port of one Machine, anywhere in the fleet.
type Backend struct {
	Network sixpn.Network
	Host    sixpn.Host
	Machine sixpn.Machine
	Port    uint16 // internal port, host byte order
}

// Quota limits the live Flycast flows of a client.
type Quota struct {
	Network sixpn.Network
	Machine sixpn.Machine // 0: the network as a whole
	Limit   uint32
}

// compareServices orders by address, protocol and first port.
func compareServices(a, b Service) int {
	return cmp.Or(
		cmp.Compare(a.Network, b.Network),
		cmp.Compare(a.Number, b.Number),
		cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.First, b.First),
		cmp.Compare(a.Last, b.Last),
	)
}

// check refuses a Want that could not be told from a mistake of its maker. None of
// this depends on what users ask for: that is refused before it is stored.
func (w Want) check() error {
	ports := map[uint32]bool{}
	for _, port := range w.Ports {
		if port.Ifindex == 0 {
			return fmt.Errorf("maps: a port of kind %d has no ifindex: give the device's", port.Kind)
		}
		if ports[port.Ifindex] {
			return fmt.Errorf("maps: device %d is wanted as two ports: want it once", port.Ifindex)
		}
		ports[port.Ifindex] = true
	}
	machines := map[bpf.RouterMachineKey]bool{}
	for _, machine := range w.Machines {
		key := machineKey(machine.Network, machine.Machine)
		if machines[key] {
			return fmt.Errorf("maps: machine %s of network %s is wanted twice: want it once", machine.Machine, machine.Network)
		}
		if !ports[machine.Ifindex] {
			return fmt.Errorf("maps: machine %s of network %s is behind device %d, which is no port: want that port too", machine.Machine, machine.Network, machine.Ifindex)
		}
		machines[key] = true
	}
	if w.HostDevice.Ifindex != 0 && !ports[w.HostDevice.Ifindex] {
		return fmt.Errorf("maps: the host device %d is no port: want that port too", w.HostDevice.Ifindex)
	}
	if w.Mesh.Ifindex != 0 && !ports[w.Mesh.Ifindex] {
		return fmt.Errorf("maps: the mesh device %d is no port: want that port too", w.Mesh.Ifindex)
	}
	for _, allocation := range w.Allocations {
		if err := allocation.check(); err != nil {
			return err
		}
	}
	sorted := slices.SortedFunc(slices.Values(w.Services), compareServices)
	for i, service := range sorted {
		if service.First == 0 || service.First > service.Last {
			return fmt.Errorf("maps: service %s has ports %d to %d: expected 1 to 65535, the first not above the last", service.name(), service.First, service.Last)
		}
		if len(service.Farther) >= MaxRegions {
			return fmt.Errorf("maps: service %s has %d groups of farther backends: expected at most %d", service.name(), len(service.Farther), MaxRegions-1)
		}
		if i > 0 && sorted[i-1].VIP == service.VIP && sorted[i-1].Protocol == service.Protocol && sorted[i-1].Last >= service.First {
			return fmt.Errorf("maps: services %s and %s overlap: cut them into ranges that do not", sorted[i-1].name(), service.name())
		}
	}
	return nil
}

// name is how errors call a service, e.g. "[fdaa:0:1:0:1::3]:80/6".
func (s Service) name() string {
	ports := fmt.Sprint(s.First)
	if s.First != s.Last {
		ports = fmt.Sprintf("%d-%d", s.First, s.Last)
	}
	return fmt.Sprintf("[%s]:%s/%d", sixpn.VIPAddr(s.Network, s.Number), ports, s.Protocol)
}

func machineKey(network sixpn.Network, machine sixpn.Machine) bpf.RouterMachineKey {
	return bpf.RouterMachineKey{Network: uint32(network), Machine: uint32(machine)}
}
