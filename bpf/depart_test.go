package bpf_test

import (
	"net/netip"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// departTables are the rows of "What may leave" that end at the mesh.
func departTables() []table {
	const (
		otherNetwork = bpf.RouterDropReasonDROP_OTHER_NETWORK
		service      = bpf.RouterDropReasonDROP_HOST_SERVICE
		unknown      = bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION
		wall         = bpf.RouterDropReasonDROP_WALL
	)
	return []table{
		{
			name: "to another host", world: withMesh,
			shot: func(w *world) shot { return from(w.client, farMachine(red), protocolUDP, udp(40000, 5000, 1, 2, 3)) },
			to:   toMesh, frame: outward,
			rows: []row{
				{name: "to a third one", change: target(sixpn.MachineAddr(red, otherHost, 1)), to: toMesh, frame: outward},
				{name: "to another address", change: target(far(red, 0x8123)), to: toMesh, frame: outward},
				{name: "another network", reason: otherNetwork, change: target(farMachine(blue))},
				{name: "without a mesh", reason: bpf.RouterDropReasonDROP_OTHER_HOST, world: func(w *world) {
					w.put(w.MeshDevice, uint32(0), bpf.RouterHostDevice{})
				}},
				{name: "hop limit 1", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 1), frame: errorWith(icmpTimeExceeded, 0, 0)},
				{name: "as large as the mesh", world: func(w *world) { w.setMesh(1380) }, change: func(_ *world, s *shot) { resize(s, 1380) },
					to: toMesh, frame: outward},
				{name: "a byte larger", reason: bpf.RouterDropReasonDROP_TOO_BIG, world: func(w *world) { w.setMesh(1380) },
					change: func(_ *world, s *shot) { resize(s, 1381) }, frame: errorWith(icmpTooBig, 0, 1380)},
				{name: "gso", change: func(_ *world, s *shot) {
					resize(s, 3000)
					s.gsoSize, s.gsoSegs = testMTU-48, 3
				}, to: toMesh, frame: outward},
				{name: "gso, its segments too large", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(_ *world, s *shot) {
					resize(s, 3000)
					s.gsoSize, s.gsoSegs = testMTU-47, 3
				}, frame: errorWith(icmpTooBig, 0, testMTU)},
				{name: "first fragment", change: header(nextFragment, fragment(0, 0, true)), to: toMesh, frame: outward},
				{name: "echo", change: func(w *world, s *shot) { *s = from(w.client, farMachine(red), protocolICMP, echo(1, 2)) }, to: toMesh, frame: outward},
				{name: "with a complete checksum", change: func(_ *world, s *shot) { s.flags = checksumComplete }, to: toMesh, frame: outward},
				{name: "error", change: func(w *world, s *shot) {
					*s = complaint(w.client, icmpUnreachable, 0, ipv6(farMachine(red), w.client.addr(), protocolUDP, udp(1, 2)))
				}, to: toMesh, frame: outward},
				{name: "error about another network's packet", reason: otherNetwork, change: func(w *world, s *shot) {
					*s = complaint(w.client, icmpUnreachable, 0, ipv6(farMachine(blue), w.client.addr(), protocolUDP, udp(1, 2)))
				}},
			},
		},
		{
			name: "to another host's agent", world: withMesh,
			shot: func(w *world) shot {
				return from(w.client, sixpn.AgentAddr(red, farHost), protocolTCP, tcp(8080, 40000, flagSYN|flagACK, 1, 1))
			},
			to: toMesh, frame: outward,
			rows: []row{
				{name: "echo reply", change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.AgentAddr(red, farHost), protocolICMP, icmp(icmpEchoReply, 0, 1))
				}, to: toMesh, frame: outward},
				{name: "bare syn", reason: service, change: flags(flagSYN)},
				{name: "udp", reason: service, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.AgentAddr(red, farHost), protocolUDP, udp(1, 2))
				}},
				{name: "echo", reason: service, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.AgentAddr(red, farHost), protocolICMP, echo())
				}},
				{name: "fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, true))},
				{name: "another network's", reason: otherNetwork, change: target(sixpn.AgentAddr(blue, farHost))},
				{name: "among hosts", reason: otherNetwork, change: target(sixpn.AgentAddr(0, farHost))},
				{name: "another address of machine 0", reason: unknown, change: target(sixpn.Fields{Network: red, Host: farHost, Low: 2}.Addr())},
			},
		},
		{
			name: "from the private namespace to another host", world: withMesh,
			shot: func(w *world) shot {
				return fromAs(w.private, sixpn.AgentAddr(red, thisHost), farMachine(red), protocolTCP, tcp(40000, 8080, flagSYN, 1, 0))
			},
			to: toMesh, frame: outward,
			rows: []row{
				{name: "another network", reason: wall, change: target(farMachine(blue))},
				{name: "as dns", reason: wall, change: source(sixpn.DNS)},
				{name: "as the network's dns", reason: wall, change: source(sixpn.NetworkDNS(red))},
				{name: "as a vip", reason: wall, change: source(vip())},
				{name: "as the agent among hosts", reason: wall, change: source(sixpn.AgentAddr(0, thisHost))},
				{name: "to the agent there", reason: unknown, change: target(sixpn.AgentAddr(red, farHost))},
			},
		},
		{
			name: "a probe of another host", world: withMesh,
			shot: func(w *world) shot {
				return fromAs(w.private, sixpn.AgentAddr(0, thisHost), sixpn.AgentAddr(0, farHost), protocolICMP, echo(1))
			},
			to: toMesh, frame: outward,
			rows: []row{
				{name: "of this host", reason: unknown, change: target(sixpn.AgentAddr(0, thisHost))},
				{name: "in a network's name", reason: unknown, change: source(sixpn.AgentAddr(red, thisHost))},
				{name: "in dns's name", reason: wall, change: source(sixpn.DNS)},
				{name: "to another address", reason: unknown, change: target(sixpn.Fields{Host: farHost, Low: 2}.Addr())},
				{name: "reply", reason: wall, change: kind(icmpEchoReply)},
				{name: "by udp", reason: service, change: func(w *world, s *shot) {
					*s = fromAs(w.private, sixpn.AgentAddr(0, thisHost), sixpn.AgentAddr(0, farHost), protocolUDP, udp(1, 2))
				}},
			},
		},
		{
			name: "load for another host", world: withMesh,
			shot: func(w *world) shot {
				return fromAs(w.private, sixpn.AgentAddr(0, thisHost), sixpn.AgentAddr(0, farHost), protocolUDP, udp(loadPort, loadPort, 1, 2))
			},
			to: toMesh, frame: outward,
			rows: []row{
				{name: "for a third one", change: target(sixpn.AgentAddr(0, otherHost)), to: toMesh, frame: outward},
				{name: "to another port", reason: service, change: toPort(loadPort + 1)},
				{name: "from another port", reason: service, change: func(_ *world, s *shot) { s.frame[offsetL4+1]++; seal(s.frame) }},
				{name: "by tcp", reason: service, change: func(w *world, s *shot) {
					*s = fromAs(w.private, sixpn.AgentAddr(0, thisHost), sixpn.AgentAddr(0, farHost), protocolTCP, tcp(loadPort, loadPort, flagSYN, 1, 0))
				}},
				{name: "for this host", reason: unknown, change: target(sixpn.AgentAddr(0, thisHost))},
				{name: "for an agent of a network", reason: unknown, change: target(sixpn.AgentAddr(red, farHost))},
				{name: "for a Machine", reason: wall, change: target(farMachine(red))},
				{name: "in another host's name", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: source(sixpn.AgentAddr(0, otherHost))},
				{name: "in a network's name", reason: unknown, change: source(sixpn.AgentAddr(red, thisHost))},
				{name: "in dns's name", reason: wall, change: source(sixpn.DNS)},
				{name: "from a Machine", reason: otherNetwork, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.AgentAddr(0, farHost), protocolUDP, udp(loadPort, loadPort, 1, 2))
				}},
				{name: "in a fragment", reason: service, change: header(nextFragment, fragment(0, 0, true))},
				{name: "behind options", reason: service, change: header(nextDestination, options(0, 8))},
				{name: "without a mesh", reason: bpf.RouterDropReasonDROP_OTHER_HOST, world: func(w *world) {
					w.put(w.MeshDevice, uint32(0), bpf.RouterHostDevice{})
				}},
			},
		},
		{
			name: "a backend's reply to another host and network", world: func(w *world) {
				withMesh(w)
				w.allocate(red, w.foreign, protocolTCP, backendPort)
			},
			shot: func(w *world) shot {
				return from(w.foreign, far(red, 0x8123), protocolTCP, tcp(backendPort, 40000, flagSYN|flagACK, 1, 2))
			},
			to: toMesh, frame: outward,
			rows: []row{
				{name: "bare syn", reason: otherNetwork, change: flags(flagSYN)},
				{name: "from another port", reason: otherNetwork, change: func(_ *world, s *shot) { s.frame[offsetL4+1]++; seal(s.frame) }},
				{name: "to a third network", reason: otherNetwork, change: target(far(blue+1, 0x8123))},
				{name: "to an agent", reason: otherNetwork, change: target(sixpn.AgentAddr(red, farHost))},
				{name: "of another Machine", reason: otherNetwork, world: func(w *world) {
					w.empty(w.Allocations)
					w.allocate(red, w.server, protocolTCP, backendPort)
				}},
				{name: "by udp", reason: otherNetwork, change: func(w *world, s *shot) {
					*s = from(w.foreign, far(red, 0x8123), protocolUDP, udp(backendPort, 40000))
				}},
				{name: "to a Machine of this host", reason: otherNetwork, change: func(w *world, s *shot) { target(w.client.low(0x8123))(w, s) }},
				{name: "fragment", reason: otherNetwork, change: header(nextFragment, fragment(0, 0, true))},
				{name: "an error about what came", change: backendComplains(backendPort), to: toMesh, frame: outward},
				{name: "an error about what came to another port", reason: otherNetwork, change: backendComplains(backendPort + 1)},
			},
		},
	}
}

// backendComplains is the error of a backend about what a client on another host sent it.
func backendComplains(port uint16) func(*world, *shot) {
	return func(w *world, s *shot) {
		*s = complaint(w.foreign, icmpUnreachable, 0, ipv6(far(red, 0x8123), w.foreign.addr(), protocolTCP, tcp(40000, port, flagACK, 1, 2)))
	}
}

// remoteBackend gives the stream to the Machine of the other host, in a network.
func remoteBackend(w *world, network sixpn.Network) {
	withMesh(w)
	flycastWorld(w)
	fields, _ := sixpn.Parse(farMachine(network))
	w.changeBackend(streamBackend, func(b *bpf.RouterBackend) {
		b.Network, b.Host, b.Machine = uint32(network), uint32(farHost), uint32(fields.Machine)
	})
	if network != red {
		streamService(func(s *bpf.RouterService) { s.Flags = 1 })(w)
	}
}

// remoteFlowTables are flows whose backend is on another host: the entry is here.
func remoteFlowTables() []table {
	var all []table
	for name, network := range map[string]sixpn.Network{"another host's backend": red, "another host's backend of another network": blue} {
		toBackend := func(w *world, s shot) []byte {
			return turned(withoutMACs(s, rewritten(s.frame, w.mesh, netip.AddrPortFrom(w.client.low(streamSlot()), clientPort),
				netip.AddrPortFrom(farMachine(network), backendPort))))
		}
		answer := func(w *world, flags uint8) shot {
			return fromFar(w, network, w.client.low(streamSlot()), protocolTCP, tcp(backendPort, clientPort, flags, 2000, 1001))
		}
		// Within a network, what belongs to no flow is plain traffic.
		stray := func(r row) row {
			if network == red {
				r.to = toClient
			} else {
				r.reason = bpf.RouterDropReasonDROP_OTHER_NETWORK
			}
			return r
		}
		all = append(all, table{
			name: "to " + name, world: func(w *world) { remoteBackend(w, network) },
			shot: func(w *world) shot { return stream(w, flagSYN) },
			to:   toMesh, frame: toBackend,
			rows: []row{
				{name: "established", world: func(w *world) { w.begin(stream(w, flagSYN)) }, change: flags(flagACK), to: toMesh, frame: toBackend},
				{name: "without a mesh", reason: bpf.RouterDropReasonDROP_OTHER_HOST, world: func(w *world) {
					w.put(w.MeshDevice, uint32(0), bpf.RouterHostDevice{})
				}},
				{name: "too big", reason: bpf.RouterDropReasonDROP_TOO_BIG, world: func(w *world) {
					w.begin(stream(w, flagSYN))
					w.setMesh(1280)
				}, change: func(w *world, s *shot) { *s = stream(w, flagACK, make([]byte, 1221)...) }, frame: errorWith(icmpTooBig, 0, 1280)},
				{name: "an error about its reply", world: func(w *world) { w.begin(stream(w, flagSYN)) }, change: func(w *world, s *shot) {
					_, received := w.fire(answer(w, flagACK))
					*s = complaint(w.client, icmpTooBig, 1280, received[offsetIP:])
				}, to: toMesh, frame: func(w *world, s shot) []byte {
					return turned(withoutMACs(s, requoted(s, w.mesh, netip.AddrPortFrom(w.client.low(streamSlot()), clientPort),
						netip.AddrPortFrom(farMachine(network), backendPort))))
				}},
			},
		}, table{
			name: "reply of " + name, world: func(w *world) { remoteBackend(w, network); w.begin(stream(w, flagSYN)) },
			shot: func(w *world) shot { return answer(w, flagSYN|flagACK) },
			to:   toClient, frame: fromVIP,
			rows: []row{
				stray(row{name: "bare syn", change: flags(flagSYN)}),
				stray(row{name: "from another port", change: func(_ *world, s *shot) { s.frame[offsetL4+1]++; seal(s.frame) }}),
				stray(row{name: "of another Machine there", change: source(sixpn.MachineAddr(network, farHost, 1))}),
				stray(row{name: "of another host", change: source(sixpn.MachineAddr(network, otherHost, 0x000c0021))}),
				stray(row{name: "to another slot", change: func(w *world, s *shot) { target(w.client.low(streamSlot()^1))(w, s) }}),
				{name: "an error of the backend", change: func(w *world, s *shot) {
					*s = aboutRemote(w, network, farMachine(network))
				}, to: toClient, frame: backToClient},
				{name: "an error of its host's router", change: func(w *world, s *shot) {
					*s = aboutRemote(w, network, sixpn.AgentAddr(red, farHost))
				}, to: toClient, frame: backToClient},
				{name: "an error of another host's router", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: func(w *world, s *shot) {
					*s = aboutRemote(w, network, sixpn.AgentAddr(red, otherHost))
				}},
				stray(row{name: "an error about another port", change: func(w *world, s *shot) {
					*s = aboutRemote(w, network, farMachine(network))
					quoteByte(offsetQuoteL4+3, 1)(w, s)
				}}),
			},
		})
	}
	return all
}

// aboutRemote is another host's error about a segment of the stream.
func aboutRemote(w *world, network sixpn.Network, who netip.Addr) shot {
	quoted := fromAs(w.mesh, w.client.low(streamSlot()), farMachine(network), protocolTCP, tcp(clientPort, backendPort, flagACK, 1, 2))
	return fromAs(w.mesh, who, w.client.low(streamSlot()), protocolICMP, icmp(icmpTooBig, 0, 1280, quoted.frame[offsetIP:]...))
}

// withoutMACs gives a frame for the mesh the Ethernet header that it came with.
func withoutMACs(s shot, frame []byte) []byte {
	copy(frame, s.frame[:offsetIP])
	return frame
}
