package bpf_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

const verdictNext = ^uint32(0) // TCX_NEXT

// What holds between hosts on the mesh holds on an uplink.
func TestUplinkPackets(t *testing.T) {
	for _, c := range slices.Concat(arriveTables(), departTables(), remoteFlowTables()) {
		t.Run(c.name, func(t *testing.T) { c.runBy(t, byUplink) })
	}
}

// A card may have summed a whole frame: answers to it keep that sum right.
func TestUplinkAnswersSummedFrames(t *testing.T) {
	summed := func(_ *world, s *shot) { s.flags = checksumComplete }
	table{
		name: "echo to the agent among hosts", world: withMesh,
		shot: func(w *world) shot {
			return fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolICMP, echo(make([]byte, 20)...))
		},
		frame: backward(echoed),
		rows: []row{
			{name: "summed", change: summed, frame: backward(echoed)},
			{name: "a packet of one hop, summed", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: func(w *world, s *shot) {
				*s = fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 1300)...))
				s.frame[offsetHop] = 1
				summed(w, s)
			}, frame: backward(errorWith(icmpTimeExceeded, 0, 0))},
			{name: "a large packet, summed", reason: bpf.RouterDropReasonDROP_TOO_BIG, world: func(w *world) { w.setDevice(w.server, 1280) },
				change: func(w *world, s *shot) {
					*s = fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 1241)...))
					summed(w, s)
				}, frame: backward(errorWith(icmpTooBig, 0, 1280))},
		},
	}.runBy(t, byUplink)
}

// strangers are frames of the host's own, that are none of the router's business.
func strangers(w *world) map[string][]byte {
	packet := ipv6(outside, linkLocal, protocolUDP, udp(1, 2, make([]byte, 20)...))
	vlan := func(inner []byte) []byte { return slices.Concat([]byte{0, 5}, inner) }
	frame := func(kind uint16, payload []byte) []byte {
		return slices.Concat(w.mesh.router[:], w.mesh.guest[:], []byte{byte(kind >> 8), byte(kind)}, payload)
	}
	v4 := append([]byte{0x45, 0, 0, 48, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, make([]byte, 28)...)
	inside := turned(fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...)).frame)
	return map[string][]byte{
		"ipv6 of others":          frame(0x86dd, packet),
		"ipv4":                    frame(0x0800, v4),
		"arp":                     frame(0x0806, make([]byte, 46)),
		"neighbour solicitation":  frame(0x86dd, ipv6(linkLocal, allNodes, protocolICMP, icmp(icmpNeighbourAsk, 0, 0, make([]byte, 16)...))),
		"an address in a payload": frame(0x86dd, ipv6(outside, linkLocal, protocolUDP, udp(1, 2, inside...))),
		"a tunnel":                frame(0x86dd, ipv6(outside, linkLocal, 41, inside[offsetIP:])),
		"two vlan tags":           frame(0x88a8, vlan(slices.Concat([]byte{0x81, 0}, vlan(inside[offsetType:])))),
	}
}

// Frames without an address of ours go to the host as they came, and cost no count.
func TestUplinkPassesWhatIsNotOurs(t *testing.T) {
	w := newWorld(t, func(s *settings) { s.way = byUplink })
	withMesh(w)
	for name, frame := range strangers(w) {
		t.Run(name, func(t *testing.T) {
			w.t = t
			before := w.counts()
			verdict, out, err := runProgram(w.SixpnUplink, shot{ifindex: w.mesh.ifindex, frame: frame})
			must(t, err)
			if verdict != verdictNext || !bytes.Equal(out, frame) {
				t.Errorf("the verdict is %d and the frame % x, want next (%d) and % x", verdict, out, verdictNext, frame)
			}
			if diff := cmp.Diff(before, w.counts(), ignoreLayout); diff != "" {
				t.Errorf("counters afterwards (-before +now):\n%s", diff)
			}
		})
	}
}

// Whatever has one of our addresses never goes to the host, also where the uplink is no
// port, or a port of another kind.
func TestUplinkPassesNothingOfOurs(t *testing.T) {
	const unknown = bpf.RouterDropReasonDROP_UNKNOWN_PORT
	w := newWorld(t, func(s *settings) { s.way = byUplink })
	for name, c := range map[string]struct {
		change func(w *world, s *shot)
		reason bpf.DropReason
	}{
		"source alone":      {target(outside), bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION},
		"destination alone": {source(outside), bpf.RouterDropReasonDROP_SPOOFED_SOURCE},
		"a port of the mesh": {func(w *world, _ *shot) {
			w.setPort(bpf.RouterPort{Ifindex: w.mesh.ifindex, Counters: w.mesh.counters, Kind: uint8(bpf.RouterPortKindPORT_MESH)})
		}, unknown},
		"unknown protocol": {set(offsetNext, 200), bpf.RouterDropReasonDROP_OTHER_NETWORK},
		"version 4":        {set(offsetIP, 0x45), bpf.RouterDropReasonDROP_NOT_IPV6},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.reset()
			withMesh(w)
			s := fromAs(w.mesh, farMachine(blue), w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...))
			c.change(w, &s)
			w.requireOutcome(t, s, outcome{reason: c.reason})
		})
	}
}

// Before its port is written the uplink lets nothing of ours in, and so does the mesh's
// program on it.
func TestUplinkWithoutItsPort(t *testing.T) {
	w := newWorld(t, func(s *settings) { s.way = byUplink })
	withMesh(w)
	s := fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...))
	s.frame = turned(s.frame)
	packet := shot{ifindex: s.ifindex, frame: s.frame[offsetIP:]}
	refused := func(program *ebpf.Program, s shot) {
		t.Helper()
		before := w.counts().PortDrops["mesh unknown_port"]
		verdict, _, err := runProgram(program, s)
		must(t, err)
		if verdict != verdictDrop || w.counts().PortDrops["mesh unknown_port"] != before+1 {
			t.Errorf("the verdict is %d, %v: expected one more drop of an unknown port", verdict, w.counts().PortDrops)
		}
	}
	refused(w.SixpnMesh, packet)
	must(t, bpf.PortSlots(w.PortSlots).Delete(w.mesh.ifindex))
	refused(w.SixpnUplink, s)
}
