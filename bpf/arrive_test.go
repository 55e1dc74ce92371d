package bpf_test

import (
	"slices"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// arriveTables are "Admission from the mesh" and the rows of "What may leave" that
// begin there.
func arriveTables() []table {
	const (
		spoofed      = bpf.RouterDropReasonDROP_SPOOFED_SOURCE
		otherNetwork = bpf.RouterDropReasonDROP_OTHER_NETWORK
		otherHosts   = bpf.RouterDropReasonDROP_OTHER_HOST
		unknown      = bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION
		service      = bpf.RouterDropReasonDROP_HOST_SERVICE
		forged       = bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING
		wall         = bpf.RouterDropReasonDROP_WALL
		fenced       = bpf.RouterDropReasonDROP_FENCED
	)
	data := make([]byte, 20)
	allocated := func(w *world) {
		withMesh(w)
		w.allocate(red, w.foreign, protocolTCP, backendPort)
	}
	withFence := func(client sixpn.Host, protocol uint8, port uint16) func(*world) {
		return func(w *world) { w.fence(client, w.server, protocol, port) }
	}
	asUDP := func(port uint16) func(*world, *shot) {
		return func(w *world, s *shot) {
			*s = fromAs(w.mesh, far(red, 0x8123), w.foreign.addr(), protocolUDP, udp(40000, port, data...))
		}
	}
	return []table{
		{
			name: "from another host", world: withMesh,
			shot: func(w *world) shot { return fromFar(w, red, w.server.addr(), protocolUDP, udp(40000, 5000, data...)) },
			to:   toServer,
			rows: []row{
				{name: "another address of the Machine", change: func(w *world, s *shot) { target(w.server.low(otherLow))(w, s) }, to: toServer},
				{name: "to a slot's address without a flow", change: func(w *world, s *shot) { target(w.server.low(0x8001))(w, s) }, to: toServer},
				{name: "from another address", change: source(far(red, otherLow)), to: toServer},
				{name: "from a third host", change: source(sixpn.MachineAddr(red, otherHost, 1)), to: toServer},
				{name: "from the agent of its host", change: source(sixpn.AgentAddr(red, farHost)), to: toServer},
				{name: "in this host's name", reason: spoofed, change: func(w *world, s *shot) { source(w.client.addr())(w, s) }},
				{name: "in the name of this host's agent", reason: spoofed, change: source(sixpn.AgentAddr(red, thisHost))},
				{name: "in the name of dns", reason: spoofed, change: source(sixpn.NetworkDNS(red))},
				{name: "in the name of dns of all networks", reason: spoofed, change: source(sixpn.DNS)},
				{name: "in the name of a vip", reason: spoofed, change: source(vip())},
				{name: "in the name of an own backend", reason: spoofed, change: func(w *world, s *shot) { source(w.server.own(0x8001))(w, s) }},
				{name: "from network 0", reason: spoofed, change: source(sixpn.MachineAddr(0, farHost, 1))},
				{name: "from an address of no agent", reason: spoofed, change: source(sixpn.Fields{Network: red, Host: farHost, Low: 2}.Addr())},
				{name: "from outside", reason: spoofed, change: source(outside)},
				{name: "from a link-local address", reason: spoofed, change: source(linkLocal)},
				{name: "to another host", reason: otherHosts, change: target(sixpn.MachineAddr(red, otherHost, 1))},
				{name: "back to its own host", reason: otherHosts, change: target(farMachine(red))},
				{name: "to a vip", reason: unknown, world: flycastWorld, change: target(vip())},
				{name: "to dns", reason: unknown, change: target(sixpn.DNS)},
				{name: "to the network's dns", reason: unknown, change: target(sixpn.NetworkDNS(red))},
				{name: "to an own backend", reason: unknown, change: func(w *world, s *shot) { target(w.server.own(0x8001))(w, s) }},
				{name: "to the gateway", reason: unknown, change: target(sixpn.Gateway)},
				{name: "to all nodes", reason: unknown, change: target(allNodes)},
				{name: "to outside", reason: unknown, change: target(outside)},
				{name: "to no Machine", reason: bpf.RouterDropReasonDROP_NO_MACHINE, change: target(sixpn.MachineAddr(red, thisHost, 0x000b0015)),
					frame: backward(errorWith(icmpUnreachable, 3, 0))},
				{name: "hop limit 1", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 1), frame: backward(errorWith(icmpTimeExceeded, 0, 0))},
				{name: "larger than the device", reason: bpf.RouterDropReasonDROP_TOO_BIG, world: func(w *world) { w.setDevice(w.server, 1280) },
					change: func(_ *world, s *shot) { resize(s, 1281) }, frame: backward(errorWith(icmpTooBig, 0, 1280))},
				{name: "gso, its segments as large as the mtu", change: func(_ *world, s *shot) {
					resize(s, 3000)
					s.gsoSize, s.gsoSegs = testMTU-48, 3
				}, to: toServer},
				{name: "gso, its segments a byte larger", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(_ *world, s *shot) {
					resize(s, 3000)
					s.gsoSize, s.gsoSegs = testMTU-47, 3
				}, frame: backward(errorWith(icmpTooBig, 0, testMTU))},
				{name: "first fragment", change: header(nextFragment, fragment(0, 0, true)), to: toServer},
				{name: "later fragment", change: header(nextFragment, fragment(0, 1448, false)), to: toServer},
				{name: "echo", change: func(w *world, s *shot) { *s = fromFar(w, red, w.server.addr(), protocolICMP, echo(data...)) }, to: toServer},
				{name: "echo reply", change: func(w *world, s *shot) {
					*s = fromFar(w, red, w.server.addr(), protocolICMP, icmp(icmpEchoReply, 0, 1, data...))
				}, to: toServer},
				{name: "redirect", reason: forged, change: func(w *world, s *shot) {
					*s = fromFar(w, red, w.server.addr(), protocolICMP, icmp(icmpRedirect, 0, 1, data...))
				}},
				{name: "neighbour solicitation", reason: forged, change: func(w *world, s *shot) {
					*s = fromFar(w, red, w.server.addr(), protocolICMP, icmp(icmpNeighbourAsk, 0, 0, sixpn.Gateway.AsSlice()...))
					s.frame[offsetHop] = 255
				}},
				{name: "routing header", reason: bpf.RouterDropReasonDROP_ROUTING_HEADER, change: header(nextRouting, options(0, 8))},
				{name: "payload length of more", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(_ *world, s *shot) { s.frame[offsetPayload+1]++ }},
				{name: "by a port of another kind", reason: bpf.RouterDropReasonDROP_UNKNOWN_PORT, world: func(w *world) {
					w.setPort(bpf.RouterPort{Ifindex: w.mesh.ifindex, Counters: w.mesh.counters, Kind: uint8(bpf.RouterPortKindPORT_MACHINE)})
				}},
			},
		},
		{
			name: "of a flow of another host", world: withMesh,
			shot: func(w *world) shot {
				return fromAs(w.mesh, far(red, 0x8123), w.server.addr(), protocolTCP, tcp(40000, backendPort, flagACK, 1, 1))
			},
			to: toServer,
			rows: []row{
				{name: "behind a fence", reason: fenced, world: withFence(farHost, protocolTCP, backendPort)},
				{name: "behind a fence, its first packet", reason: fenced, world: withFence(farHost, protocolTCP, backendPort), change: flags(flagSYN)},
				{name: "behind a fence, no flow's address", world: withFence(farHost, protocolTCP, backendPort), change: source(far(red, otherLow)), to: toServer},
				{name: "a fence for another host", world: withFence(otherHost, protocolTCP, backendPort), to: toServer},
				{name: "a fence of another port", world: withFence(farHost, protocolTCP, backendPort+1), to: toServer},
				{name: "a fence of another protocol", world: withFence(farHost, protocolUDP, backendPort), to: toServer},
				{name: "by udp behind a fence", reason: fenced, world: withFence(farHost, protocolUDP, datagramInner), change: func(w *world, s *shot) {
					*s = fromAs(w.mesh, far(red, 0x8123), w.server.addr(), protocolUDP, udp(40000, datagramInner, data...))
				}},
			},
		},
		{
			name: "from another host and network", world: allocated,
			shot: func(w *world) shot {
				return fromAs(w.mesh, far(red, 0x8123), w.foreign.addr(), protocolTCP, tcp(40000, backendPort, flagSYN, 1, 0))
			},
			to: toForeign,
			rows: []row{
				{name: "data", change: flags(flagACK | flagPSH), to: toForeign},
				{name: "another address of the backend", change: func(w *world, s *shot) { target(w.foreign.low(otherLow))(w, s) }, to: toForeign},
				{name: "behind a fence", reason: fenced, world: func(w *world) { w.fence(farHost, w.foreign, protocolTCP, backendPort) }},
				{name: "without the allocation", reason: otherNetwork, world: func(w *world) { w.empty(w.Allocations) }},
				{name: "from a third network", reason: otherNetwork, change: source(far(blue+1, 0x8123))},
				{name: "to another port", reason: otherNetwork, change: toPort(backendPort + 1)},
				{name: "to another Machine", reason: otherNetwork, world: func(w *world) {
					w.empty(w.Allocations)
					w.allocate(red, w.server, protocolTCP, backendPort)
				}},
				{name: "by another protocol", reason: otherNetwork, change: asUDP(backendPort)},
				{name: "by udp, allocated", world: func(w *world) { w.allocate(red, w.foreign, protocolUDP, datagramInner) }, change: asUDP(datagramInner), to: toForeign},
				{name: "by icmp", reason: otherNetwork, change: func(w *world, s *shot) { *s = fromFar(w, red, w.foreign.addr(), protocolICMP, echo(data...)) }},
				{name: "by the agent", reason: otherNetwork, change: source(sixpn.AgentAddr(red, farHost))},
				{name: "by the agent among hosts", reason: otherNetwork, change: source(sixpn.AgentAddr(0, farHost))},
				{name: "first fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, true))},
				{name: "later fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 1448, false))},
				{name: "to no Machine", reason: bpf.RouterDropReasonDROP_NO_MACHINE, world: func(w *world) {
					must(w.t, bpf.MachineSlots(w.MachineSlots).Delete(w.foreign.key()))
				}, frame: backward(errorWith(icmpUnreachable, 3, 0))},
			},
		},
		{
			name: "to the agent among hosts", world: withMesh,
			shot: func(w *world) shot {
				return fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolICMP, echo(data...))
			},
			frame: backward(echoed),
			rows: []row{
				{name: "reply", change: kind(icmpEchoReply), to: toPrivate, frame: toHost},
				{name: "from a Machine", reason: otherNetwork, change: source(farMachine(red))},
				{name: "from a network's agent", reason: otherNetwork, change: source(sixpn.AgentAddr(red, farHost))},
				{name: "from another address", reason: spoofed, change: source(sixpn.Fields{Host: farHost, Low: 2}.Addr())},
				{name: "in a fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, false))},
				{name: "by udp", reason: service, change: func(w *world, s *shot) {
					*s = fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolUDP, udp(1, 53, data...))
				}},
				{name: "by tcp", reason: service, change: func(w *world, s *shot) {
					*s = fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolTCP, tcp(1, 53, flagACK, 1, 0))
				}},
				{name: "error about a probe", change: func(w *world, s *shot) {
					*s = fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolICMP,
						icmp(icmpUnreachable, 0, 0, ipv6(sixpn.AgentAddr(0, thisHost), sixpn.AgentAddr(0, farHost), protocolICMP, echo())...))
				}, to: toPrivate, frame: toHost},
			},
		},
		{
			name: "load of another host", world: withMesh,
			shot: func(w *world) shot {
				return fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolUDP, udp(loadPort, loadPort, data...))
			},
			to: toPrivate, frame: toHost,
			rows: []row{
				{name: "of a third host", change: source(sixpn.AgentAddr(0, otherHost)), to: toPrivate, frame: toHost},
				{name: "to another port", reason: service, change: toPort(loadPort + 1)},
				{name: "from another port", reason: service, change: func(_ *world, s *shot) { s.frame[offsetL4+1]++; seal(s.frame) }},
				{name: "by tcp", reason: service, change: func(w *world, s *shot) {
					*s = fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolTCP, tcp(loadPort, loadPort, flagSYN, 1, 0))
				}},
				{name: "in the name of this host", reason: spoofed, change: source(sixpn.AgentAddr(0, thisHost))},
				{name: "from a Machine", reason: otherNetwork, change: source(farMachine(red))},
				{name: "from a network's agent", reason: otherNetwork, change: source(sixpn.AgentAddr(red, farHost))},
				{name: "to a third host", reason: otherHosts, change: target(sixpn.AgentAddr(0, otherHost))},
				{name: "to a network's agent", reason: otherNetwork, change: target(sixpn.AgentAddr(red, thisHost))},
				{name: "to a Machine", reason: otherNetwork, change: func(w *world, s *shot) { target(w.server.addr())(w, s) }},
				{name: "inside a network, from a Machine", reason: service, change: func(w *world, s *shot) {
					*s = fromFar(w, red, sixpn.AgentAddr(red, thisHost), protocolUDP, udp(loadPort, loadPort, data...))
				}},
				{name: "in a fragment", reason: service, change: header(nextFragment, fragment(0, 0, true))},
				{name: "behind options", reason: service, change: header(nextDestination, options(0, 8))},
				{name: "to no private namespace", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, world: func(w *world) {
					w.put(w.HostPort, uint32(0), bpf.RouterHostDevice{})
				}},
			},
		},
		{
			name: "answers of another host to the agent", world: withMesh,
			shot: func(w *world) shot {
				return fromFar(w, red, sixpn.AgentAddr(red, thisHost), protocolTCP, tcp(8080, 40000, flagSYN|flagACK, 1, 1))
			},
			to: toPrivate, frame: toHost,
			rows: []row{
				{name: "reset", change: flags(flagRST), to: toPrivate, frame: toHost},
				{name: "bare syn", reason: service, change: flags(flagSYN)},
				{name: "udp", reason: service, change: func(w *world, s *shot) {
					*s = fromFar(w, red, sixpn.AgentAddr(red, thisHost), protocolUDP, udp(53, 53, data...))
				}},
				{name: "echo", change: func(w *world, s *shot) {
					*s = fromFar(w, red, sixpn.AgentAddr(red, thisHost), protocolICMP, echo(data...))
				}, frame: backward(echoed)},
				{name: "echo reply", change: func(w *world, s *shot) {
					*s = fromFar(w, red, sixpn.AgentAddr(red, thisHost), protocolICMP, icmp(icmpEchoReply, 0, 1, data...))
				}, to: toPrivate, frame: toHost},
				{name: "another network's agent", reason: otherNetwork, change: target(sixpn.AgentAddr(blue, thisHost))},
				{name: "the agent among hosts", reason: otherNetwork, change: target(sixpn.AgentAddr(0, thisHost))},
				{name: "by an agent", reason: service, change: source(sixpn.AgentAddr(red, farHost))},
				{name: "fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, true))},
			},
		},
		{
			name: "error of another host", world: allocated,
			shot: func(w *world) shot {
				quote := ipv6(w.server.addr(), farMachine(red), protocolUDP, udp(1, 2, data...))
				return fromFar(w, red, w.server.addr(), protocolICMP, icmp(icmpUnreachable, 0, 0, quote...))
			},
			to: toServer,
			rows: []row{
				{name: "of its router", change: source(sixpn.AgentAddr(red, farHost)), to: toServer},
				{name: "of a third host's router", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: source(sixpn.AgentAddr(red, otherHost))},
				{name: "of a Machine that was not asked", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: source(sixpn.MachineAddr(red, farHost, 1))},
				{name: "about another's packet", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: func(w *world, s *shot) { target(w.spare.addr())(w, s) }},
				{name: "about an answer across networks", change: aboutAllocated(backendPort), to: toForeign},
				{name: "about another port's packet across networks", reason: otherNetwork, change: aboutAllocated(backendPort + 1)},
				{name: "about an answer that no allocation allows", reason: otherNetwork, world: func(w *world) { w.empty(w.Allocations) },
					change: aboutAllocated(backendPort)},
			},
		},
		{
			name: "a mistake before the final check", world: func(w *world) { flycastWorld(w); withMesh(w); w.begin(stream(w, flagSYN)) },
			shot: func(w *world) shot { return stream(w, flagACK) },
			to:   toServer, frame: toStream,
			rows: []row{
				{name: "a backend on a reserved host", reason: wall, world: func(w *world) {
					w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), func(f *bpf.RouterFlow) { f.BackendHost = uint32(sixpn.HostOwnBackend) })
				}},
				{name: "a backend of another network elsewhere", reason: wall, world: func(w *world) {
					w.changeFlow(flowKey(w, protocolTCP, vipPort, 0), func(f *bpf.RouterFlow) {
						f.BackendNetwork, f.BackendHost = uint32(blue), uint32(farHost)
					})
				}},
			},
		},
	}
}

// aboutAllocated is the error of the client's Machine about what a port of the backend sent.
func aboutAllocated(port uint16) func(*world, *shot) {
	return func(w *world, s *shot) {
		quote := ipv6(w.foreign.addr(), far(red, 0x8123), protocolTCP, tcp(port, 40000, flagACK, 1, 2))
		*s = fromFar(w, red, w.foreign.addr(), protocolICMP, icmp(icmpTooBig, 0, 1280, quote...))
	}
}

// What is no IPv6 packet gets no further, whatever its bytes say.
func TestNoPacketOfTheMesh(t *testing.T) {
	w := newWorld(t)
	withMesh(w)
	packet := turned(fromFar(w, red, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...)).frame)[offsetIP:]
	for name, c := range map[string]struct {
		packet []byte
		reason bpf.DropReason
	}{
		"ipv4":              {append([]byte{0x45}, packet[1:]...), bpf.RouterDropReasonDROP_NOT_IPV6},
		"version 0":         {append([]byte{0x00}, packet[1:]...), bpf.RouterDropReasonDROP_NOT_IPV6},
		"not turned":        {turned(slices.Concat(make([]byte, offsetIP), packet))[offsetIP:], bpf.RouterDropReasonDROP_OTHER_HOST},
		"an ethernet frame": {w.client.frame(packet), bpf.RouterDropReasonDROP_NOT_IPV6},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			before := w.counts()
			verdict, _, err := runProgram(w.SixpnMesh, shot{ifindex: w.mesh.ifindex, frame: c.packet})
			must(t, err)
			if got := w.counts().Drops[c.reason.String()] - before.Drops[c.reason.String()]; verdict != verdictDrop || got != 1 {
				t.Errorf("the verdict is %d and %d drops are for %s: expected one drop", verdict, got, c.reason)
			}
		})
	}
}

// The two programs are for different devices, and each refuses the other's.
func TestProgramOfAnotherDevice(t *testing.T) {
	w := newWorld(t)
	withMesh(w)
	s := from(w.client, w.server.addr(), protocolUDP, udp(1, 2, make([]byte, 20)...))
	s.ifindex = w.mesh.ifindex
	verdict, _, err := runProgram(w.SixpnRouter, s)
	must(t, err)
	if verdict != verdictDrop || w.counts().PortDrops["mesh unknown_port"] != 1 {
		t.Errorf("the verdict is %d, %v: expected a drop of an unknown port", verdict, w.counts().PortDrops)
	}
}
