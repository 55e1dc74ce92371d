package bpf_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// errorAnswer is the ICMPv6 error that the router sends about a shot.
func errorAnswer(w *world, s shot, kind, code uint8, word uint32) []byte {
	source, _ := netip.AddrFromSlice(s.frame[offsetSource:offsetTarget])
	network := red
	if fields, _ := sixpn.Parse(source); fields.Network != 0 {
		network = fields.Network
	}
	quote := s.frame[offsetIP:min(len(s.frame), offsetIP+1232)]
	return answered(w, s, ipv6(sixpn.AgentAddr(network, thisHost), source, protocolICMP, icmp(kind, code, word, quote...)))
}

// errorWith is errorAnswer as a row wants it.
func errorWith(kind, code uint8, word uint32) func(*world, shot) []byte {
	return func(w *world, s shot) []byte { return errorAnswer(w, s, kind, code, word) }
}

// toHost is a frame as the private namespace gets it: it is no hop.
func toHost(w *world, s shot) []byte {
	frame := plain(s.frame, w.private)
	frame[offsetHop]++
	return frame
}

// resize makes the payload so long that the IPv6 packet has so many bytes.
func resize(s *shot, length int) {
	s.frame = setLength(append(s.frame[:offsetL4+8], make([]byte, length-48)...))
	if s.frame[offsetNext] == protocolUDP {
		s.frame[offsetL4+4], s.frame[offsetL4+5] = byte((length-40)>>8), byte(length-40)
	}
	seal(s.frame)
}

func resolveTables() []table {
	return []table{
		{
			name: "destination",
			shot: func(w *world) shot {
				return from(w.client, w.server.addr(), protocolUDP, udp(40000, 53, 1, 2, 3))
			},
			to: toServer,
			rows: []row{
				{name: "another address of the machine", change: func(w *world, s *shot) { target(w.server.low(otherLow))(w, s) }, to: toServer},
				{name: "an address with the slot bit, without a flow", change: func(w *world, s *shot) { target(w.server.low(0x8001))(w, s) }, to: toServer},
				{name: "from another own address", change: func(w *world, s *shot) { source(w.client.low(otherLow))(w, s) }, to: toServer},
				{name: "itself", change: func(w *world, s *shot) { target(w.client.low(otherLow))(w, s) }, to: toClient},
				{name: "another network", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) { target(w.foreign.addr())(w, s) }},
				{name: "another network by icmp", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) {
					*s = from(w.client, w.foreign.addr(), protocolICMP, echo())
				}},
				{name: "another network by an address with the slot bit", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK,
					change: func(w *world, s *shot) { target(w.foreign.low(0x8001))(w, s) }},
				{name: "another host", reason: bpf.RouterDropReasonDROP_OTHER_HOST, change: target(sixpn.MachineAddr(red, otherHost, 0x000b0012))},
				{name: "no machine", reason: bpf.RouterDropReasonDROP_NO_MACHINE, change: target(sixpn.MachineAddr(red, thisHost, 0x000b0015)),
					frame: errorWith(icmpUnreachable, 3, 0)},
				{name: "no machine any more", reason: bpf.RouterDropReasonDROP_NO_MACHINE, world: func(w *world) {
					must(w.t, bpf.MachineSlots(w.MachineSlots).Delete(w.server.key()))
				}, frame: errorWith(icmpUnreachable, 3, 0)},
				{name: "outside", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(outside)},
				{name: "network 0", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) { target(sixpn.MachineAddr(0, thisHost, w.server.machine))(w, s) }},
				{name: "reserved address of the dns host", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(netip.MustParseAddr("fdaa::4"))},
				{name: "vip number of more than 32 bits", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION,
					change: target(sixpn.Fields{Network: red, Host: sixpn.HostVIP, Machine: 0x10000, Low: 1}.Addr())},
				{name: "own backend address of another machine", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) { target(w.server.own(0x8001))(w, s) }},
				{name: "own backend address without a flow", reason: bpf.RouterDropReasonDROP_NO_FLOW, change: func(w *world, s *shot) { target(w.client.own(0x8001))(w, s) },
					frame: errorWith(icmpUnreachable, 4, 0)},
				{name: "hop limit 2", change: set(offsetHop, 2), to: toServer},
				{name: "hop limit 1", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 1), frame: errorWith(icmpTimeExceeded, 0, 0)},
				{name: "hop limit 0", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 0), frame: errorWith(icmpTimeExceeded, 0, 0)},
				{name: "as large as the mtu", change: func(_ *world, s *shot) { resize(s, testMTU) }, to: toServer},
				{name: "a byte larger", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(_ *world, s *shot) { resize(s, testMTU+1) }, frame: errorWith(icmpTooBig, 0, testMTU)},
				{name: "too large for a smaller device", reason: bpf.RouterDropReasonDROP_TOO_BIG, world: func(w *world) { w.setDevice(w.server, 1280) },
					change: func(_ *world, s *shot) { resize(s, 1281) }, frame: errorWith(icmpTooBig, 0, 1280)},
				{name: "too large, a later fragment", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(w *world, s *shot) {
					resize(s, testMTU)
					header(nextFragment, fragment(0, 1448, true))(w, s)
				}},
				{name: "too large echo", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(w *world, s *shot) {
					*s = from(w.client, w.server.addr(), protocolICMP, echo(make([]byte, 1400)...))
				}, frame: errorWith(icmpTooBig, 0, testMTU)},
				{name: "gso, its segments as large as the mtu", change: func(_ *world, s *shot) {
					resize(s, 3000)
					s.gsoSize, s.gsoSegs = testMTU-48, 3
				}, to: toServer},
				{name: "gso, its segments a byte larger", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(_ *world, s *shot) {
					resize(s, 3000)
					s.gsoSize, s.gsoSegs = testMTU-47, 3
				}, frame: errorWith(icmpTooBig, 0, testMTU)},
				{name: "with a complete checksum", change: func(_ *world, s *shot) { s.flags = checksumComplete }, to: toServer},
			},
		},
		{
			name: "tcp segments",
			shot: func(w *world) shot {
				s := from(w.client, w.server.addr(), protocolTCP, tcp(40000, 80, flagACK, 1, 1, make([]byte, 3000)...))
				s.gsoSize, s.gsoSegs = testMTU-60, 3
				return s
			},
			to: toServer,
			rows: []row{
				{name: "longer header", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(_ *world, s *shot) {
					s.frame[offsetL4+12] = 6 << 4
					seal(s.frame)
				}, frame: errorWith(icmpTooBig, 0, testMTU)},
			},
		},
		{
			name: "dns",
			shot: func(w *world) shot { return from(w.client, sixpn.DNS, protocolUDP, udp(40000, 53, 1)) },
			to:   toPrivate, frame: toHost,
			rows: []row{
				{name: "of the network", change: target(sixpn.NetworkDNS(red)), to: toPrivate, frame: toHost},
				{name: "of another network", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: target(sixpn.NetworkDNS(blue))},
				{name: "by tcp", change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.DNS, protocolTCP, tcp(40000, 53, flagSYN, 1, 0))
				}, to: toPrivate, frame: toHost},
				{name: "the last hop", change: set(offsetHop, 1), to: toPrivate, frame: toHost},
				{name: "another udp port", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: set(offsetL4+3, 54)},
				{name: "another tcp port", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.DNS, protocolTCP, tcp(40000, 22, flagSYN, 1, 0))
				}},
				{name: "another protocol", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: set(offsetNext, 132)},
				{name: "echo", change: func(w *world, s *shot) { *s = from(w.client, sixpn.DNS, protocolICMP, echo(1)) }, frame: echoed},
				{name: "echo behind options", reason: bpf.RouterDropReasonDROP_HEADER_CHAIN, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.DNS, protocolICMP, echo(1))
					header(nextDestination, options(0, 8))(w, s)
				}},
				{name: "echo reply", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.DNS, protocolICMP, icmp(icmpEchoReply, 0, 1))
				}},
				{name: "first fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, true))},
				{name: "later fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 1448, false))},
				{name: "larger than the device", reason: bpf.RouterDropReasonDROP_TOO_BIG, change: func(_ *world, s *shot) { resize(s, testMTU+1) },
					frame: errorWith(icmpTooBig, 0, testMTU)},
				{name: "without a private namespace", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, world: func(w *world) {
					w.put(w.HostPort, uint32(0), bpf.RouterHostDevice{})
				}},
			},
		},
		{
			name: "answers to the agent",
			shot: func(w *world) shot {
				return from(w.client, sixpn.AgentAddr(red, thisHost), protocolTCP, tcp(8080, 40000, flagSYN|flagACK, 1, 1))
			},
			to: toPrivate, frame: toHost,
			rows: []row{
				{name: "data", change: func(_ *world, s *shot) { s.frame[offsetL4+13] = flagACK | flagPSH; seal(s.frame) }, to: toPrivate, frame: toHost},
				{name: "reset", change: func(_ *world, s *shot) { s.frame[offsetL4+13] = flagRST; seal(s.frame) }, to: toPrivate, frame: toHost},
				{name: "bare syn", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: set(offsetL4+13, flagSYN)},
				{name: "bare syn with push", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: set(offsetL4+13, flagSYN|flagPSH)},
				{name: "udp", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.AgentAddr(red, thisHost), protocolUDP, udp(40000, 53))
				}},
				{name: "echo", reason: bpf.RouterDropReasonDROP_HOST_SERVICE, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.AgentAddr(red, thisHost), protocolICMP, echo())
				}},
				{name: "echo reply", change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.AgentAddr(red, thisHost), protocolICMP, icmp(icmpEchoReply, 0, 1))
				}, to: toPrivate, frame: toHost},
				{name: "fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, true))},
				{name: "another host's agent", reason: bpf.RouterDropReasonDROP_OTHER_HOST, change: target(sixpn.AgentAddr(red, otherHost))},
				{name: "another network's agent", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: target(sixpn.AgentAddr(blue, thisHost))},
				{name: "the agent among hosts", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: target(sixpn.AgentAddr(0, thisHost))},
				{name: "another address of machine 0", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION,
					change: target(sixpn.Fields{Network: red, Host: thisHost, Low: 2}.Addr())},
			},
		},
		{
			name: "from the private namespace",
			shot: func(w *world) shot {
				return fromAs(w.private, sixpn.AgentAddr(red, thisHost), w.client.addr(), protocolTCP, tcp(40000, 8080, flagSYN, 1, 0))
			},
			to: toClient,
			rows: []row{
				{name: "another host", reason: bpf.RouterDropReasonDROP_OTHER_HOST, change: target(sixpn.MachineAddr(red, otherHost, 1))},
				{name: "a vip", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(vip())},
				{name: "dns", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(sixpn.DNS)},
				{name: "itself", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(sixpn.AgentAddr(red, thisHost))},
				{name: "outside", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(outside)},
				{name: "no machine", reason: bpf.RouterDropReasonDROP_NO_MACHINE, change: target(sixpn.MachineAddr(red, thisHost, 0x000b0015)),
					frame: errorWith(icmpUnreachable, 3, 0)},
				{name: "hop limit 1", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 1), frame: errorWith(icmpTimeExceeded, 0, 0)},
				{name: "neighbour solicitation", change: func(w *world, s *shot) {
					*s = solicit(w, linkLocal, sixpn.Gateway)
					s.ifindex = w.private.ifindex
				}, frame: func(w *world, s shot) []byte {
					frame := advertisement(w, s)
					copy(frame[0:], w.client.guest[:]) // who asked, by the frame
					return frame
				}},
			},
		},
	}
}

// A port's sender gets a second's worth of errors at once, then no more than the rate.
func TestErrorRate(t *testing.T) {
	const rate, many = 1000, 20000
	w := newWorld(t)
	s := from(w.client, sixpn.MachineAddr(red, thisHost, 0x000b0015), protocolUDP, udp(1, 2))
	pin(t)
	verdicts, begin := map[uint32]int{}, time.Now()
	for range many {
		verdict, _ := w.fire(shot{ifindex: s.ifindex, frame: slices.Clone(s.frame)})
		verdicts[verdict]++
	}
	// The clock of the budget moves in steps of some milliseconds.
	earned := int(rate*(time.Since(begin).Seconds()+1)) + 10
	if answers := verdicts[verdictRedirect]; answers < rate || answers > earned {
		t.Errorf("%d of %d packets were answered, want at least %d and at most %d", answers, many, rate, earned)
	}
	limited := from(w.server, sixpn.MachineAddr(red, thisHost, 0x000b0015), protocolUDP, udp(1, 2))
	if verdict, _ := w.fire(limited); verdict != verdictRedirect {
		t.Errorf("another port's sender gets no answer: the budget is not its own")
	}
}

// Networks on other hosts come in by one port, and none uses up the errors of another.
func TestErrorRateOfNetworks(t *testing.T) {
	const rate, many = 1000, 20000
	w := newWorld(t)
	withMesh(w)
	toNobody := func(network sixpn.Network) shot {
		return fromFar(w, network, sixpn.MachineAddr(network, thisHost, 0x000b0015), protocolUDP, udp(1, 2, make([]byte, 20)...))
	}
	pin(t)
	answers, begin := 0, time.Now()
	for range many {
		if verdict, _ := w.fire(toNobody(red)); verdict == verdictRedirect {
			answers++
		}
	}
	earned := int(rate*(time.Since(begin).Seconds()+1)) + 10
	if answers < rate || answers > earned {
		t.Errorf("%d of %d packets were answered, want at least %d and at most %d", answers, many, rate, earned)
	}
	for network := red + 1; network < red+4; network++ {
		if verdict, _ := w.fire(toNobody(network)); verdict != verdictRedirect {
			t.Errorf("network %v gets no answer: the budget is not its own", network)
		}
	}
}
