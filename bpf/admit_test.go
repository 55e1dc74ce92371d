package bpf_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

const (
	icmpUnreachable   = 1
	icmpTooBig        = 2
	icmpTimeExceeded  = 3
	icmpParameter     = 4
	icmpEcho          = 128
	icmpEchoReply     = 129
	icmpMLDQuery      = 130
	icmpMLDDone       = 132
	icmpRouterAsk     = 133
	icmpRouterTell    = 134
	icmpNeighbourAsk  = 135
	icmpNeighbourTell = 136
	icmpRedirect      = 137
	icmpRenumbering   = 138
	icmpInverseAsk    = 141
	icmpInverseTell   = 142
	icmpMLDReport     = 143
	icmpCertificate   = 148
	icmpMulticastLast = 153
)

var (
	linkLocal   = netip.MustParseAddr("fe80::8000:0:1:2")
	solicited   = netip.MustParseAddr("ff02::1:ff00:1")
	allNodes    = netip.MustParseAddr("ff02::1")
	outside     = netip.MustParseAddr("2001:db8::1")
	unspecified = netip.IPv6Unspecified()
)

// solicit is a neighbour solicitation with hop limit 255.
func solicit(w *world, source, target netip.Addr) shot {
	body := append(target.AsSlice(), 1, 1)
	s := shot{ifindex: w.client.ifindex, frame: w.client.frame(ipv6(source, solicited, protocolICMP,
		icmp(icmpNeighbourAsk, 0, 0, append(body, w.client.guest[:]...)...)))}
	s.frame[offsetHop] = 255
	seal(s.frame)
	return s
}

// advertisement is the router's answer to a solicitation of its address.
func advertisement(w *world, s shot) []byte {
	asker, _ := netip.AddrFromSlice(s.frame[offsetSource:offsetTarget])
	m := w.members[slices.IndexFunc(w.members, func(m *member) bool { return m.ifindex == s.ifindex })]
	body := append(sixpn.Gateway.AsSlice(), 2, 1)
	packet := ipv6(sixpn.Gateway, asker, protocolICMP, icmp(icmpNeighbourTell, 0, 0xe0000000, append(body, m.router[:]...)...))
	packet[7] = 255
	return answered(w, s, packet)
}

// kind makes the message another one.
func kind(value uint8) func(*world, *shot) {
	return func(_ *world, s *shot) { s.frame[offsetL4] = value; seal(s.frame) }
}

// echoed is the answer to an echo request.
func echoed(w *world, s shot) []byte {
	source, _ := netip.AddrFromSlice(s.frame[offsetSource:offsetTarget])
	asked, _ := netip.AddrFromSlice(s.frame[offsetTarget:offsetL4])
	body := slices.Clone(s.frame[offsetL4:])
	body[0] = icmpEchoReply
	return answered(w, s, ipv6(asked, source, protocolICMP, body))
}

func echo(data ...byte) []byte { return icmp(icmpEcho, 0, 0x12340001, data...) }

func target(a netip.Addr) func(*world, *shot) {
	return func(_ *world, s *shot) { setAddress(s.frame, offsetTarget, a); seal(s.frame) }
}

func source(a netip.Addr) func(*world, *shot) {
	return func(_ *world, s *shot) { setAddress(s.frame, offsetSource, a); seal(s.frame) }
}

func admitTables() []table {
	noise := []row{}
	for value, reason := range map[uint8]bpf.DropReason{
		icmpMLDQuery: bpf.RouterDropReasonDROP_MULTICAST_NOISE, icmpMLDDone: bpf.RouterDropReasonDROP_MULTICAST_NOISE,
		icmpMLDReport: bpf.RouterDropReasonDROP_MULTICAST_NOISE, icmpRouterAsk: bpf.RouterDropReasonDROP_NEIGHBOUR_NOISE,
		icmpRouterTell: bpf.RouterDropReasonDROP_ROUTER_ADVERTISEMENT, icmpRedirect: bpf.RouterDropReasonDROP_REDIRECT,
		icmpNeighbourTell: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, icmpRenumbering: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING,
		icmpInverseAsk: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, icmpInverseTell: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING,
		icmpCertificate: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, icmpMulticastLast: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING,
	} {
		noise = append(noise, row{name: fmt.Sprintf("type %d", value), reason: reason, change: kind(value)})
	}
	// The same messages to a Machine, from its neighbour's own address.
	forged := slices.Clone(noise)
	return []table{
		{
			name:  "neighbour solicitation",
			shot:  func(w *world) shot { return solicit(w, linkLocal, sixpn.Gateway) },
			frame: advertisement,
			rows: append([]row{
				{name: "from the primary address", change: func(w *world, s *shot) { source(w.client.addr())(w, s) }, frame: advertisement},
				{name: "to the gateway itself", change: target(sixpn.Gateway), frame: advertisement},
				{name: "without an option", change: func(_ *world, s *shot) { cut(24)(nil, s); seal(s.frame) }, frame: advertisement},
				{name: "cut", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, change: cut(23)},
				{name: "hop limit 254", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, change: set(offsetHop, 254)},
				{name: "code 1", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, change: set(offsetL4+1, 1)},
				{name: "behind options", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, change: header(nextDestination, options(0, 8))},
				{name: "fragment", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_SPOOFING, change: header(nextFragment, fragment(0, 0, false))},
				{name: "duplicate address detection", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_NOISE, change: source(unspecified)},
				{name: "from a neighbour's address", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: func(w *world, s *shot) { source(w.server.addr())(w, s) }},
				{name: "from outside", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: source(outside)},
				{name: "of another address", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_NOISE, change: func(_ *world, s *shot) { s.frame[offsetL4+8+15] = 2 }},
				{name: "with a complete checksum", reason: bpf.RouterDropReasonDROP_INTERNAL, change: func(_ *world, s *shot) { s.flags = checksumComplete }},
			}, noise...),
		},
		{
			name: "neighbour messages between Machines",
			shot: func(w *world) shot {
				s := from(w.client, w.server.addr(), protocolICMP, echo(make([]byte, 24)...))
				s.frame[offsetHop] = 255
				return s
			},
			to:   toServer,
			rows: forged,
		},
		{
			name:  "echo to the gateway",
			shot:  func(w *world) shot { return from(w.client, sixpn.Gateway, protocolICMP, echo(1, 2, 3)) },
			frame: echoed,
			rows: []row{
				{name: "large", change: func(_ *world, s *shot) {
					s.frame = seal(setLength(append(s.frame, make([]byte, 1200)...)))
				}, frame: echoed},
				{name: "fragment", reason: bpf.RouterDropReasonDROP_FRAGMENT, change: header(nextFragment, fragment(0, 0, true))},
				{name: "behind options", reason: bpf.RouterDropReasonDROP_HEADER_CHAIN, change: header(nextDestination, options(0, 8))},
				{name: "another link-local address", reason: bpf.RouterDropReasonDROP_LINK_LOCAL, change: target(linkLocal)},
				{name: "reply instead", reason: bpf.RouterDropReasonDROP_LINK_LOCAL, change: kind(icmpEchoReply)},
				{name: "from a link-local address", reason: bpf.RouterDropReasonDROP_LINK_LOCAL, change: source(linkLocal)},
				{name: "udp instead", reason: bpf.RouterDropReasonDROP_LINK_LOCAL, change: func(w *world, s *shot) {
					*s = from(w.client, sixpn.Gateway, protocolUDP, udp(icmpEcho<<8, 8))
				}},
				{name: "to all nodes", reason: bpf.RouterDropReasonDROP_MULTICAST, change: target(allNodes)},
				{name: "hop-by-hop to all nodes", reason: bpf.RouterDropReasonDROP_MULTICAST_NOISE, change: func(w *world, s *shot) {
					target(allNodes)(w, s)
					header(nextHopByHop, options(0, 8))(w, s)
				}},
				{name: "hop-by-hop of udp to all nodes", reason: bpf.RouterDropReasonDROP_HOP_BY_HOP, change: func(w *world, s *shot) {
					target(allNodes)(w, s)
					header(nextHopByHop, options(0, 8))(w, s)
					s.frame[offsetL4] = protocolUDP
				}},
				{name: "to outside", reason: bpf.RouterDropReasonDROP_UNKNOWN_DESTINATION, change: target(outside)},
				{name: "with a complete checksum", reason: bpf.RouterDropReasonDROP_INTERNAL, change: func(_ *world, s *shot) { s.flags = checksumComplete }},
			},
		},
		{
			name: "private namespace as a source",
			shot: func(w *world) shot {
				return fromAs(w.private, sixpn.DNS, w.client.addr(), protocolUDP, udp(53, 40000, 1))
			},
			to: toClient,
			rows: []row{
				{name: "a machine", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: func(w *world, s *shot) { source(w.server.addr())(w, s) }},
				{name: "another host's agent", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: source(sixpn.AgentAddr(red, otherHost))},
				{name: "outside", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: source(outside)},
				{name: "own backend", reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE, change: func(w *world, s *shot) { source(w.client.own(2))(w, s) }},
				{name: "link-local", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_NOISE, change: source(linkLocal)},
				{name: "unspecified", reason: bpf.RouterDropReasonDROP_NEIGHBOUR_NOISE, change: source(unspecified)},
			},
		},
	}
}

// fromAs is a shot of a member in the name of an address.
func fromAs(m *member, source, target netip.Addr, protocol uint8, l4 []byte) shot {
	return shot{ifindex: m.ifindex, frame: seal(m.frame(ipv6(source, target, protocol, l4)))}
}

// Every bit of the /112 counts.
func TestSourceBits(t *testing.T) {
	w := newWorld(t)
	s := from(w.client, w.server.addr(), protocolUDP, udp(1, 2))
	w.requireOutcome(t, s, outcome{to: w.server, frame: plain(s.frame, w.server)})
	for bit := range 128 {
		t.Run(fmt.Sprintf("bit %d", bit), func(t *testing.T) {
			s := shot{ifindex: s.ifindex, frame: slices.Clone(s.frame)}
			s.frame[offsetSource+bit/8] ^= 0x80 >> (bit % 8)
			seal(s.frame)
			if bit >= 112 {
				w.requireOutcome(t, s, outcome{to: w.server, frame: plain(s.frame, w.server)})
				return
			}
			w.requireOutcome(t, s, outcome{reason: bpf.RouterDropReasonDROP_SPOOFED_SOURCE})
		})
	}
}
