package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

func fromVIP(w *world, s shot) []byte { return restored(w, s.frame, vipPort) }

// streamSlot is the slot of the client's stream.
func streamSlot() uint16 { return slot(linkLow, testVIP, vipPort, 0) }

// asForeign makes a frame one of the other network's Machine.
func asForeign(w *world, s *shot) {
	s.ifindex = w.foreign.ifindex
	copy(s.frame[0:], w.foreign.router[:])
	copy(s.frame[6:], w.foreign.guest[:])
	source(w.foreign.addr())(w, s)
}

func replyTables() []table {
	return []table{{
		name: "reply", world: func(w *world) { flycastWorld(w); begun(w) },
		shot: func(w *world) shot { return reply(w, streamSlot(), flagACK|flagPSH, 1, 2, 3) },
		to:   toClient, frame: fromVIP,
		rows: []row{
			{name: "of a new flow", world: func(w *world) {
				w.empty(w.Flows)
				w.quota(red, 0, 10)
				w.quota(red, w.client.machine, 10)
				w.put(w.BackendLoad, uint32(streamBackend), bpf.RouterLoad{Generation: 7})
				w.begin(stream(w, flagSYN))
			}, change: flags(flagSYN | flagACK), to: toClient, frame: fromVIP},
			{name: "reset", change: flags(flagRST), to: toClient, frame: fromVIP},
			{name: "service withdrawn", world: func(w *world) { must(w.t, w.Services.Delete(serviceKey(protocolTCP, vipPort))) }, to: toClient, frame: fromVIP},
			{name: "from another address of the backend", change: func(w *world, s *shot) { source(w.server.low(otherLow))(w, s) }, to: toClient, frame: fromVIP},
			{name: "with a complete checksum", change: func(_ *world, s *shot) { s.flags = checksumComplete }, to: toClient, frame: fromVIP},
			{name: "gso", change: func(w *world, s *shot) {
				*s = reply(w, streamSlot(), flagACK, make([]byte, 3000)...)
				s.gsoSize, s.gsoSegs = 1360, 3
			}, to: toClient, frame: fromVIP},
			{name: "too large for the client's device", reason: bpf.RouterDropReasonDROP_TOO_BIG, world: func(w *world) { w.setDevice(w.client, 1280) },
				change: func(w *world, s *shot) { *s = reply(w, streamSlot(), flagACK, make([]byte, 1221)...) }, frame: errorWith(icmpTooBig, 0, 1280)},
			// What is no reply is plain traffic of the network.
			{name: "bare syn", change: flags(flagSYN), to: toClient},
			{name: "from another port", change: func(_ *world, s *shot) { s.frame[offsetL4+1]++; seal(s.frame) }, to: toClient},
			{name: "to another port", change: func(_ *world, s *shot) { s.frame[offsetL4+3]++; seal(s.frame) }, to: toClient},
			{name: "to another slot", change: func(w *world, s *shot) { target(w.client.low(streamSlot()^1))(w, s) }, to: toClient},
			{name: "from another machine", change: func(w *world, s *shot) {
				s.ifindex = w.spare.ifindex
				source(w.spare.addr())(w, s)
			}, to: toClient},
			{name: "in a fragment", change: header(nextFragment, fragment(0, 0, false)), to: toClient},
			{name: "behind options", change: header(nextDestination, options(0, 8)), to: toClient},
			{name: "from another network", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: asForeign},
			{name: "by the address as its own backend", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: func(w *world, s *shot) {
				*s = selfReply(w, streamSlot())
			}, frame: func(w *world, s shot) []byte {
				return answered(w, s, ipv6(w.client.own(streamSlot()), w.client.addr(), protocolTCP, resetOf(s)))
			}},
			{name: "flow gone", world: func(w *world) {
				w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), setState(bpf.RouterFlowStateFLOW_GONE))
			}, to: toClient, frame: fromVIP},
			{name: "flow dead", world: func(w *world) {
				w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), setState(bpf.RouterFlowStateFLOW_DEAD))
			}, to: toClient},
		},
	}, {
		name: "reply across networks", world: func(w *world) { flycastWorld(w); crossNetwork(w); w.begin(stream(w, flagSYN)) },
		shot: func(w *world) shot {
			return from(w.foreign, w.client.low(streamSlot()), protocolTCP, tcp(backendPort, clientPort, flagSYN|flagACK, 1, 2))
		},
		to: toClient, frame: fromVIP,
		rows: []row{
			{name: "bare syn", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: flags(flagSYN)},
			{name: "from another port", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(_ *world, s *shot) { s.frame[offsetL4+1]++; seal(s.frame) }},
			{name: "to another port", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(_ *world, s *shot) { s.frame[offsetL4+3]++; seal(s.frame) }},
			{name: "to the primary address", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) { target(w.client.addr())(w, s) }},
			{name: "to another machine", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) { target(w.server.low(streamSlot()))(w, s) }},
			{name: "to the vip", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: target(vip())},
			{name: "in a fragment", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: header(nextFragment, fragment(0, 0, false))},
			{name: "by udp", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) {
				*s = from(w.foreign, w.client.low(streamSlot()), protocolUDP, udp(backendPort, clientPort))
			}},
			{name: "by icmp", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) {
				*s = from(w.foreign, w.client.low(streamSlot()), protocolICMP, echo())
			}},
			{name: "flow dead", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, world: func(w *world) {
				w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), setState(bpf.RouterFlowStateFLOW_DEAD))
			}},
			{name: "from the client's own network", change: func(w *world, s *shot) {
				*s = reply(w, streamSlot(), flagACK)
			}, to: toClient},
		},
	}, {
		name: "datagram", world: flycastWorld,
		shot: datagram,
		to:   toServer, frame: func(w *world, s shot) []byte { return translated(w, s.frame, w.server, datagramInner, 0) },
		rows: []row{
			{name: "without a checksum", change: func(_ *world, s *shot) { s.frame[offsetL4+6], s.frame[offsetL4+7] = 0, 0 }, to: toServer,
				frame: func(w *world, s shot) []byte {
					frame := translated(w, s.frame, w.server, datagramInner, 0)
					frame[offsetL4+6], frame[offsetL4+7] = 0, 0 // wrong it came, wrong it goes: the receiver drops it
					return frame
				}},
			{name: "refused", reason: bpf.RouterDropReasonDROP_REFUSED, world: func(w *world) {
				w.put(w.Services, serviceKey(protocolUDP, datagramPort), bpf.RouterService{Id: 2})
			}, frame: errorWith(icmpUnreachable, 4, 0)},
			{name: "no backend", reason: bpf.RouterDropReasonDROP_NO_BACKEND, world: func(w *world) {
				w.put(w.Services, serviceKey(protocolUDP, datagramPort), w.service(2))
			}, frame: errorWith(icmpUnreachable, 4, 0)},
			{name: "of a flow that is gone", world: func(w *world) {
				w.begin(datagram(w))
				w.changeFlow(flowKey(w, protocolUDP, datagramPort, 0), setState(bpf.RouterFlowStateFLOW_GONE))
				w.put(w.Services, serviceKey(protocolUDP, datagramPort), w.service(2, w.addBackend(w.spare, datagramInner, 2)))
			}, to: toSpare, frame: func(w *world, s shot) []byte { return translated(w, s.frame, w.spare, datagramInner, 0) }},
			{name: "the reply", world: func(w *world) { w.begin(datagram(w)) }, change: func(w *world, s *shot) {
				*s = from(w.server, w.client.low(slot(linkLow, testVIP, datagramPort, 0)), protocolUDP, udp(datagramInner, clientPort, 9))
			}, to: toClient, frame: func(w *world, s shot) []byte { return restored(w, s.frame, datagramPort) }},
			{name: "a reply to no flow", change: func(w *world, s *shot) {
				*s = from(w.server, w.client.low(slot(linkLow, testVIP, datagramPort, 0)), protocolUDP, udp(datagramInner, clientPort, 9))
			}, to: toClient},
		},
	}, {
		name: "own backend", world: func(w *world) { flycastWorld(w); streamBackendOf(toClient)(w) },
		shot: func(w *world) shot { return stream(w, flagSYN) },
		to:   toClient, frame: toSelf,
		rows: []row{
			{name: "the reply", world: func(w *world) { w.begin(stream(w, flagSYN)) }, change: func(w *world, s *shot) {
				*s = selfReply(w, streamSlot())
			}, to: toClient, frame: fromVIP},
			{name: "the reply, to another slot", reason: bpf.RouterDropReasonDROP_NO_FLOW, world: func(w *world) { w.begin(stream(w, flagSYN)) },
				change: func(w *world, s *shot) { *s = selfReply(w, streamSlot()^1) },
				frame: func(w *world, s shot) []byte {
					return answered(w, s, ipv6(w.client.own(streamSlot()^1), w.client.addr(), protocolTCP, resetOf(s)))
				}},
			{name: "the reply of a neighbour", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, world: func(w *world) { w.begin(stream(w, flagSYN)) },
				change: func(w *world, s *shot) {
					*s = from(w.server, w.client.own(streamSlot()), protocolTCP, tcp(backendPort, clientPort, flagSYN|flagACK, 1, 2))
				}},
			{name: "the reply by its common address", world: func(w *world) { w.begin(stream(w, flagSYN)) }, change: func(w *world, s *shot) {
				*s = from(w.client, w.client.low(streamSlot()), protocolTCP, tcp(backendPort, clientPort, flagSYN|flagACK, 1, 2))
			}, to: toClient},
			{name: "as a source", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: func(w *world, s *shot) { source(w.client.own(streamSlot()))(w, s) }},
			{name: "device of another machine by mistake", reason: bpf.RouterDropReasonDROP_WALL, world: func(w *world) {
				must(w.t, bpf.MachineSlots(w.MachineSlots).Put(bpf.RouterMachine{
					Network: uint32(red), Machine: uint32(w.client.machine), Ifindex: w.server.ifindex, Counters: w.server.counters, Mtu: testMTU,
				}))
			}},
		},
	}}
}

// toSelf is a frame of the client as it gets it as its own backend.
func toSelf(w *world, s shot) []byte {
	return rewritten(s.frame, w.client, netip.AddrPortFrom(w.client.own(streamSlot()), clientPort),
		netip.AddrPortFrom(w.client.addr(), backendPort))
}

func selfReply(w *world, slot uint16) shot {
	return from(w.client, w.client.own(slot), protocolTCP, tcp(backendPort, clientPort, flagSYN|flagACK, 1, 2))
}

// resetOf is the TCP header that answers a segment with an acknowledgment.
func resetOf(s shot) []byte {
	l4 := s.frame[offsetL4:]
	answer := tcp(port(l4, 2), port(l4, 0), flagRST, word(l4, 8), 0)
	answer[14], answer[15] = 0, 0
	return answer
}

// A checksum that came wrong goes on wrong by as much: a router that repaired it would
// hide a damaged packet from its receiver.
func TestWrongChecksumStaysWrong(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	s := datagram(w)
	want := translated(w, s.frame, w.server, datagramInner, 0)
	s.frame[offsetL4+8] ^= 0x40
	want[offsetL4+8] ^= 0x40
	if _, frame := w.fire(s); string(frame) != string(want) {
		t.Errorf("a damaged datagram leaves as\n% x, want\n% x", frame, want)
	}
}
