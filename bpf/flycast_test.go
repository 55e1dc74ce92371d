package bpf_test

import (
	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// resetAnswer is the router's own reset for a segment to a VIP.
func resetAnswer(w *world, s shot) []byte {
	l4 := s.frame[offsetL4:]
	header := int(l4[12]>>4) * 4
	var answer []byte
	if l4[13]&flagACK != 0 {
		answer = tcp(port(l4, 2), port(l4, 0), flagRST, word(l4, 8), 0)
	} else {
		length := uint32(len(l4) - header)
		if l4[13]&flagSYN != 0 {
			length++
		}
		if l4[13]&flagFIN != 0 {
			length++
		}
		answer = tcp(port(l4, 2), port(l4, 0), flagRST|flagACK, 0, word(l4, 4)+length)
	}
	answer[14], answer[15] = 0, 0 // no window
	return answered(w, s, ipv6(vip(), w.client.addr(), protocolTCP, answer))
}

func word(data []byte, offset int) uint32 {
	return uint32(port(data, offset))<<16 | uint32(port(data, offset+2))
}

func toStream(w *world, s shot) []byte { return translated(w, s.frame, w.server, backendPort, 0) }
func toRange(w *world, s shot) []byte  { return translated(w, s.frame, w.server, rangeInner, 0) }

// flags makes the segment another one, its checksum right.
func flags(value uint8) func(*world, *shot) {
	return func(_ *world, s *shot) { s.frame[offsetL4+13] = value; seal(s.frame) }
}

func toPort(value uint16) func(*world, *shot) {
	return func(_ *world, s *shot) {
		s.frame[offsetL4+2], s.frame[offsetL4+3] = byte(value>>8), byte(value)
		seal(s.frame)
	}
}

// streamService edits the service of the TCP port.
func streamService(change func(*bpf.RouterService)) func(*world) {
	return func(w *world) {
		var service bpf.RouterService
		must(w.t, w.Services.Lookup(serviceKey(protocolTCP, vipPort), &service))
		change(&service)
		w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
	}
}

func action(value bpf.RouterServiceAction) func(*world) {
	return streamService(func(s *bpf.RouterService) { s.Action = uint8(value) })
}

// streamBackendOf makes another Machine, or the client itself, the backend.
func streamBackendOf(pick func(*world) *member) func(*world) {
	return func(w *world) {
		m := pick(w)
		w.changeBackend(streamBackend, func(b *bpf.RouterBackend) {
			b.Network, b.Machine = uint32(m.network), uint32(m.machine)
		})
	}
}

func toForeign(w *world) *member { return w.foreign }

func crossNetwork(w *world) {
	streamBackendOf(toForeign)(w)
	streamService(func(s *bpf.RouterService) { s.Flags = 1 })(w)
}

// begun is a world in which the stream has been given to the server.
func begun(w *world) { w.establish() }

// ended is one whose stream is in a state, and whose new flows go to the spare.
func ended(state bpf.RouterFlowState) func(*world) {
	return func(w *world) {
		w.establish()
		w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), setState(state))
		w.moveService()
	}
}

// moveService gives new flows of the TCP port to the spare.
func (w *world) moveService() {
	w.t.Helper()
	w.put(w.Services, serviceKey(protocolTCP, vipPort), w.service(1, w.addBackend(w.spare, backendPort, 1)))
}

func toSpare(w *world) *member { return w.spare }

// fill takes every element of the flow table that is left.
func fill(w *world) {
	key := bpf.RouterFlowKey{Network: 1, Protocol: protocolUDP}
	for ; w.Flows.Put(key, bpf.RouterFlow{Key: key}) == nil; key.Machine++ {
	}
}

func takeSlots(count int) func(*world) {
	return func(w *world) {
		for probe := range count {
			w.occupy(flowKey(w, protocolTCP, vipPort, probe))
		}
	}
}

func flycastTables() []table {
	return []table{{
		name: "new flow", world: flycastWorld,
		shot: func(w *world) shot { return stream(w, flagSYN, 1, 2, 3) },
		to:   toServer, frame: toStream,
		rows: []row{
			{name: "from another address of the client", change: func(w *world, s *shot) { source(w.client.low(otherLow))(w, s) }, to: toServer, frame: toStream},
			{name: "first port of a range", change: toPort(rangePort), to: toServer, frame: toRange},
			{name: "last port of a range", change: toPort(2*rangePort - 1), to: toServer, frame: toRange},
			{name: "before a range", reason: bpf.RouterDropReasonDROP_NO_SERVICE, change: toPort(rangePort - 1), frame: resetAnswer},
			{name: "after a range", reason: bpf.RouterDropReasonDROP_NO_SERVICE, change: toPort(2 * rangePort), frame: resetAnswer},
			{name: "a single port of a range", world: func(w *world) {
				w.put(w.Services, serviceKey(protocolTCP, 1500), w.service(1, streamBackend))
			}, change: toPort(1500), to: toServer, frame: toStream},
			{name: "a port without a service", reason: bpf.RouterDropReasonDROP_NO_SERVICE, change: toPort(81), frame: resetAnswer},
			{name: "another protocol's port", reason: bpf.RouterDropReasonDROP_NO_SERVICE, change: func(w *world, s *shot) {
				*s = from(w.client, vip(), protocolUDP, udp(clientPort, vipPort))
			}, frame: errorWith(icmpUnreachable, 4, 0)},
			{name: "a protocol without ports", reason: bpf.RouterDropReasonDROP_NO_SERVICE, change: set(offsetNext, 132), frame: errorWith(icmpUnreachable, 4, 0)},
			{name: "no vip", reason: bpf.RouterDropReasonDROP_NO_VIP, change: target(sixpn.VIPAddr(red, testVIP+1)), frame: errorWith(icmpUnreachable, 3, 0)},
			{name: "a vip that differs in its high half", reason: bpf.RouterDropReasonDROP_NO_VIP,
				change: target(sixpn.VIPAddr(red, testVIP+0x10000)), frame: errorWith(icmpUnreachable, 3, 0)},
			{name: "another network's vip", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: target(sixpn.VIPAddr(blue, testVIP))},
			{name: "no region", reason: bpf.RouterDropReasonDROP_NO_BACKEND, world: streamService(func(s *bpf.RouterService) { s.Prime = 0 }), frame: resetAnswer},
			{name: "an empty region", reason: bpf.RouterDropReasonDROP_NO_BACKEND, world: func(w *world) { w.put(w.Maglev, uint32(0), uint32(0)) }, frame: resetAnswer},
			{name: "backend gone", reason: bpf.RouterDropReasonDROP_NO_BACKEND, world: func(w *world) {
				w.changeBackend(streamBackend, func(b *bpf.RouterBackend) { b.Flags = 1 })
			}, frame: resetAnswer},
			{name: "backend of another service", reason: bpf.RouterDropReasonDROP_NO_BACKEND, world: func(w *world) {
				w.changeBackend(streamBackend, func(b *bpf.RouterBackend) { b.Service = 2 })
			}, frame: resetAnswer},
			{name: "refused", reason: bpf.RouterDropReasonDROP_REFUSED, world: action(bpf.RouterServiceActionSERVICE_REFUSE), frame: resetAnswer},
			{name: "handler", reason: bpf.RouterDropReasonDROP_REFUSED, world: action(bpf.RouterServiceActionSERVICE_HANDLER), frame: resetAnswer},
			{name: "wake", reason: bpf.RouterDropReasonDROP_REFUSED, world: action(bpf.RouterServiceActionSERVICE_WAKE), frame: resetAnswer},
			{name: "backend at its hard limit", reason: bpf.RouterDropReasonDROP_BACKEND_LIMIT, world: func(w *world) {
				streamService(func(s *bpf.RouterService) { s.HardLimit = 1 })(w)
				w.begin(from(w.client, vip(), protocolTCP, tcp(clientPort+1, vipPort, flagSYN, 1, 0)))
			}},
			{name: "backend at its soft limit", world: func(w *world) {
				streamService(func(s *bpf.RouterService) { s.SoftLimit = 1 })(w)
				w.begin(from(w.client, vip(), protocolTCP, tcp(clientPort+1, vipPort, flagSYN, 1, 0)))
			}, to: toServer, frame: toStream},
			{name: "backend at its hard limit, below a soft one", reason: bpf.RouterDropReasonDROP_BACKEND_LIMIT, world: func(w *world) {
				streamService(func(s *bpf.RouterService) { s.SoftLimit, s.HardLimit = 5, 1 })(w)
				w.begin(from(w.client, vip(), protocolTCP, tcp(clientPort+1, vipPort, flagSYN, 1, 0)))
			}},
			{name: "machine's quota", reason: bpf.RouterDropReasonDROP_MACHINE_QUOTA, world: func(w *world) { w.quota(red, w.client.machine, 0) }},
			{name: "network's quota", reason: bpf.RouterDropReasonDROP_NETWORK_QUOTA, world: func(w *world) { w.quota(red, 0, 0) }},
			{name: "without a quota", reason: bpf.RouterDropReasonDROP_MACHINE_QUOTA, world: func(w *world) { must(w.t, w.Quotas.Delete(w.client.key())) }},
			{name: "table full", reason: bpf.RouterDropReasonDROP_FLOW_TABLE_FULL, world: fill},
			{name: "three slots taken", world: takeSlots(3), to: toServer, frame: func(w *world, s shot) []byte {
				return translated(w, s.frame, w.server, backendPort, 3)
			}},
			{name: "four slots taken", reason: bpf.RouterDropReasonDROP_SLOTS_TAKEN, world: takeSlots(4)},
			{name: "backend of another network by mistake", reason: bpf.RouterDropReasonDROP_WALL, world: streamBackendOf(toForeign)},
			{name: "backend of another network by allocation", world: crossNetwork, to: toForeign, frame: func(w *world, s shot) []byte {
				return translated(w, s.frame, w.foreign, backendPort, 0)
			}},
			{name: "backend on another host", reason: bpf.RouterDropReasonDROP_OTHER_HOST, world: func(w *world) {
				w.changeBackend(streamBackend, func(b *bpf.RouterBackend) { b.Host = uint32(otherHost) })
			}},
			{name: "backend without a device", reason: bpf.RouterDropReasonDROP_NO_MACHINE, world: func(w *world) {
				must(w.t, bpf.MachineSlots(w.MachineSlots).Delete(w.server.key()))
			}, frame: errorWith(icmpUnreachable, 3, 0)},
			{name: "hop limit 1", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 1), frame: errorWith(icmpTimeExceeded, 0, 0)},
			{name: "fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, true))},
			{name: "later fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 1448, true))},
			{name: "behind options", reason: bpf.RouterDropReasonDROP_HEADER_CHAIN, change: header(nextDestination, options(0, 8))},
			{name: "no syn", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: flags(flagACK), frame: resetAnswer},
			{name: "syn with ack", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: flags(flagSYN | flagACK), frame: resetAnswer},
			{name: "syn with fin", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: flags(flagSYN | flagFIN), frame: resetAnswer},
			{name: "fin", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: flags(flagFIN), frame: resetAnswer},
			{name: "reset", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: flags(flagRST)},
			{name: "with a complete checksum", change: func(_ *world, s *shot) { s.flags = checksumComplete }, to: toServer, frame: toStream},
			{name: "echo", change: func(w *world, s *shot) { *s = from(w.client, vip(), protocolICMP, echo(1)) }, frame: echoed},
			{name: "echo to no vip", reason: bpf.RouterDropReasonDROP_NO_VIP, change: func(w *world, s *shot) {
				*s = from(w.client, sixpn.VIPAddr(red, 1), protocolICMP, echo(1))
			}, frame: errorWith(icmpUnreachable, 3, 0)},
			{name: "echo to another network's vip", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) {
				*s = from(w.client, sixpn.VIPAddr(blue, testVIP), protocolICMP, echo(1))
			}},
			{name: "echo in fragments", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: func(w *world, s *shot) {
				*s = from(w.client, vip(), protocolICMP, echo(1))
				header(nextFragment, fragment(0, 0, true))(w, s)
			}},
			{name: "echo reply", reason: bpf.RouterDropReasonDROP_NO_SERVICE, change: func(w *world, s *shot) {
				*s = from(w.client, vip(), protocolICMP, icmp(icmpEchoReply, 0, 1))
			}, frame: errorWith(icmpUnreachable, 4, 0)},
		},
	}, {
		name: "established flow", world: func(w *world) { flycastWorld(w); begun(w) },
		shot: func(w *world) shot { return stream(w, flagACK|flagPSH, 1, 2, 3) },
		to:   toServer, frame: toStream,
		rows: []row{
			{name: "backend closed to new flows", world: (*world).moveService, to: toServer, frame: toStream},
			{name: "service withdrawn", world: func(w *world) { must(w.t, w.Services.Delete(serviceKey(protocolTCP, vipPort))) }, to: toServer, frame: toStream},
			{name: "from another port", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: func(_ *world, s *shot) { s.frame[offsetL4+1]++; seal(s.frame) }, frame: resetAnswer},
			{name: "gone", reason: bpf.RouterDropReasonDROP_BACKEND_GONE, world: ended(bpf.RouterFlowStateFLOW_GONE), frame: resetAnswer},
			{name: "gone, syn", world: ended(bpf.RouterFlowStateFLOW_GONE), change: flags(flagSYN), to: toSpare, frame: func(w *world, s shot) []byte {
				return translated(w, s.frame, w.spare, backendPort, 0)
			}},
			{name: "gone, syn, no service", reason: bpf.RouterDropReasonDROP_NO_SERVICE, world: func(w *world) {
				ended(bpf.RouterFlowStateFLOW_GONE)(w)
				must(w.t, w.Services.Delete(serviceKey(protocolTCP, vipPort)))
			}, change: flags(flagSYN), frame: resetAnswer},
			{name: "gone, syn, no backend", reason: bpf.RouterDropReasonDROP_NO_BACKEND, world: func(w *world) {
				ended(bpf.RouterFlowStateFLOW_GONE)(w)
				streamService(func(s *bpf.RouterService) { s.Prime = 0 })(w)
			}, change: flags(flagSYN), frame: resetAnswer},
			{name: "closing", world: ended(bpf.RouterFlowStateFLOW_CLOSING), to: toServer, frame: toStream},
			{name: "closing, syn", world: ended(bpf.RouterFlowStateFLOW_CLOSING), change: flags(flagSYN), to: toSpare, frame: func(w *world, s shot) []byte {
				return translated(w, s.frame, w.spare, backendPort, 0)
			}},
			{name: "syn again", world: (*world).moveService, change: flags(flagSYN), to: toServer, frame: toStream},
			{name: "being rewritten", reason: bpf.RouterDropReasonDROP_NO_FLOW, world: ended(bpf.RouterFlowStateFLOW_BUSY), frame: resetAnswer},
			{name: "being rewritten, syn", reason: bpf.RouterDropReasonDROP_SLOTS_TAKEN, world: ended(bpf.RouterFlowStateFLOW_BUSY), change: flags(flagSYN)},
			{name: "too large for the backend's device", reason: bpf.RouterDropReasonDROP_TOO_BIG, world: func(w *world) { w.setDevice(w.server, 1280) },
				change: func(w *world, s *shot) { *s = stream(w, flagACK, make([]byte, 1221)...) }, frame: errorWith(icmpTooBig, 0, 1280)},
			{name: "gso", change: func(w *world, s *shot) {
				*s = stream(w, flagACK, make([]byte, 3000)...)
				s.gsoSize, s.gsoSegs = 1360, 3
			}, to: toServer, frame: toStream},
			{name: "entry that leads to another network", reason: bpf.RouterDropReasonDROP_WALL, world: func(w *world) {
				w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), func(f *bpf.RouterFlow) {
					f.BackendNetwork, f.BackendMachine = uint32(blue), uint32(w.foreign.machine)
				})
			}},
		},
	}}
}
