package bpf_test

import (
	"net/netip"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// farHost is where packets of the mesh come from. The kernel takes the two bytes of its
// number that stand where an Ethernet header has its type for that type, in a test run:
// here it is IPv6.
const farHost sixpn.Host = 0x001886dd

const loadPort = uint16(bpf.RouterLoadPortLOAD_PORT)

// far is a Machine of the other host.
func far(network sixpn.Network, low uint16) netip.Addr {
	return sixpn.Fields{Network: network, Host: farHost, Machine: 0x000c0021, Low: low}.Addr()
}

func farMachine(network sixpn.Network) netip.Addr { return far(network, linkLow) }

// withMesh gives the world a device to other hosts. The mesh has no link layer: no MACs.
// Behind an uplink is the next hop of the fabric.
func withMesh(w *world) {
	w.mesh = w.add("mesh", 0, 0)
	if w.way == byMesh {
		w.mesh.guest, w.mesh.router = mac{}, mac{}
	}
	w.setMeshPort()
	w.setMesh(testMTU)
}

func (w *world) setMeshPort() {
	w.t.Helper()
	kind := bpf.RouterPortKindPORT_MESH
	if w.way != byMesh {
		kind = bpf.RouterPortKindPORT_UPLINK
	}
	w.setPort(bpf.RouterPort{Ifindex: w.mesh.ifindex, Host: uint32(w.host), Counters: w.mesh.counters, Mtu: testMTU, Kind: uint8(kind)})
}

func (w *world) setMesh(mtu uint16) {
	w.t.Helper()
	method := bpf.RouterRedirectMethodREDIRECT_EGRESS
	if w.way != byMesh {
		method = bpf.RouterRedirectMethodREDIRECT_NEIGHBOUR
	}
	w.put(w.MeshDevice, uint32(0), bpf.RouterHostDevice{Ifindex: w.mesh.ifindex, Counters: w.mesh.counters, Mtu: mtu, Redirect: uint8(method)})
}

// allocate lets clients of a network reach a port of a Machine.
func (w *world) allocate(client sixpn.Network, m *member, protocol uint8, port uint16) {
	w.t.Helper()
	w.put(w.Allocations, bpf.RouterAllocationKey{
		ClientNetwork: uint32(client), BackendNetwork: uint32(m.network), BackendMachine: uint32(m.machine), Port: port, Protocol: protocol,
	}, uint32(0))
}

// fence keeps the flows of a host's clients from a port of a Machine.
func (w *world) fence(client sixpn.Host, m *member, protocol uint8, port uint16) {
	w.t.Helper()
	w.put(w.Fences, bpf.RouterFenceKey{
		ClientHost: uint32(client), Network: uint32(m.network), Machine: uint32(m.machine), Port: port, Protocol: protocol,
	}, uint32(0))
	w.put(w.Fenced, uint32(0), uint32(1))
}

// turned is a frame with its addresses rotated, and those that an error in it quotes.
func turned(frame []byte) []byte {
	frame = slices.Clone(frame)
	offsets := []int{offsetSource, offsetTarget}
	if len(frame) >= offsetQuoteL4 && frame[offsetNext] == protocolICMP && frame[offsetL4] < icmpEcho {
		offsets = append(offsets, offsetQuoteSource, offsetQuoteTarget)
	}
	for _, offset := range offsets {
		if address, ok := netip.AddrFromSlice(frame[offset:min(len(frame), offset+16)]); ok {
			setAddress(frame, offset, sixpn.Rotate(address))
		}
	}
	return frame
}

func toMesh(w *world) *member { return w.mesh }

// outward is a frame that leaves for another host: one hop less, turned, and what
// Ethernet header it has nobody will see.
func outward(_ *world, s shot) []byte {
	frame := slices.Clone(s.frame)
	frame[offsetHop]--
	return turned(frame)
}

// backward is an answer to a packet of the mesh.
func backward(answer func(*world, shot) []byte) func(*world, shot) []byte {
	return func(w *world, s shot) []byte { return turned(answer(w, s)) }
}

// fromFar is a shot of the other host's Machine.
func fromFar(w *world, network sixpn.Network, to netip.Addr, protocol uint8, l4 []byte) shot {
	return fromAs(w.mesh, farMachine(network), to, protocol, l4)
}
