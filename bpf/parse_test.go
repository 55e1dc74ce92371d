package bpf_test

import (
	"slices"
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

// tables are all packet tables; TestEveryReasonHasARow reads them.
func tables() []table {
	return slices.Concat(parseTables(), admitTables(), resolveTables(), errorTables(), leaveTables(), flycastTables(), replyTables(),
		arriveTables(), departTables(), remoteFlowTables())
}

func TestPackets(t *testing.T) {
	for _, c := range tables() {
		t.Run(c.name, c.run)
	}
}

func TestEveryReasonHasARow(t *testing.T) {
	covered := map[bpf.DropReason]bool{}
	for _, c := range tables() {
		for _, r := range c.rows {
			covered[r.reason] = true
		}
	}
	for _, r := range offloadRows() {
		covered[r.reason] = true
	}
	covered[bpf.RouterDropReasonDROP_FABRIC_ERRORS] = true // TestFabricErrorsAreLimited: the clock decides
	for _, reason := range bpf.DropReasons() {
		if !covered[reason] {
			t.Errorf("no packet table has a row for drop reason %q: add one", reason)
		}
	}
}

// header inserts an extension header.
func header(kind uint8, raw []byte) func(*world, *shot) {
	return func(_ *world, s *shot) { s.frame = insertHeader(s.frame, kind, raw) }
}

// set writes one byte of the frame.
func set(offset int, value byte) func(*world, *shot) {
	return func(_ *world, s *shot) { s.frame[offset] = value }
}

// cut shortens the packet to so many bytes of IPv6 payload.
func cut(payload int) func(*world, *shot) {
	return func(_ *world, s *shot) { s.frame = setLength(s.frame[:offsetL4+payload]) }
}

const (
	nextHopByHop    = 0
	nextRouting     = 43
	nextFragment    = 44
	nextNone        = 59
	nextDestination = 60
)

// routing is a routing header of a type, with one address.
func routing(kind uint8) []byte {
	raw := make([]byte, 24)
	raw[1], raw[2], raw[3] = 2, kind, 1
	return raw
}

func parseTables() []table {
	return []table{
		{
			name: "parse tcp",
			shot: func(w *world) shot {
				return from(w.client, w.server.addr(), protocolTCP, tcp(40000, 80, flagACK, 1, 1, make([]byte, 40)...))
			},
			to: toServer,
			rows: []row{
				{name: "ipv4 by type", reason: bpf.RouterDropReasonDROP_NOT_IPV6, change: func(_ *world, s *shot) { copy(s.frame[offsetType:], []byte{8, 0}) }},
				{name: "arp", reason: bpf.RouterDropReasonDROP_NOT_IPV6, change: func(_ *world, s *shot) { copy(s.frame[offsetType:], []byte{8, 6}) }},
				{name: "vlan tag", reason: bpf.RouterDropReasonDROP_NOT_IPV6, change: func(_ *world, s *shot) { s.frame = slices.Insert(s.frame, offsetType, 0x81, 0, 0, 1) }},
				{name: "version 4", reason: bpf.RouterDropReasonDROP_NOT_IPV6, change: set(offsetIP, 0x40)},
				{name: "payload length too small", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(_ *world, s *shot) { s.frame[offsetPayload+1]-- }},
				{name: "payload length too large", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(_ *world, s *shot) { s.frame[offsetPayload+1]++ }},
				{name: "payload length 0", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(_ *world, s *shot) { s.frame[offsetPayload+1] = 0 }},
				{name: "shorter than its header", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: cut(19)},
				{name: "exactly its header", change: func(_ *world, s *shot) { cut(20)(nil, s); seal(s.frame) }, to: toServer},
				{name: "data offset 4", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: set(offsetL4+12, 4<<4)},
				{name: "data offset at the end", change: func(_ *world, s *shot) { s.frame[offsetL4+12] = 15 << 4; seal(s.frame) }, to: toServer},
				{name: "data offset beyond the end", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(_ *world, s *shot) {
					cut(59)(nil, s)
					s.frame[offsetL4+12] = 15 << 4
				}},
				{name: "hop-by-hop", reason: bpf.RouterDropReasonDROP_HOP_BY_HOP, change: header(nextHopByHop, options(0, 8))},
				{name: "hop-by-hop in second place", reason: bpf.RouterDropReasonDROP_HOP_BY_HOP, change: func(w *world, s *shot) {
					header(nextHopByHop, options(0, 8))(w, s)
					header(nextDestination, options(0, 8))(w, s)
				}},
				{name: "routing type 0", reason: bpf.RouterDropReasonDROP_ROUTING_HEADER, change: header(nextRouting, routing(0))},
				{name: "routing type 2", reason: bpf.RouterDropReasonDROP_ROUTING_HEADER, change: header(nextRouting, routing(2))},
				{name: "routing type 3", reason: bpf.RouterDropReasonDROP_ROUTING_HEADER, change: header(nextRouting, routing(3))},
				{name: "routing type 4", reason: bpf.RouterDropReasonDROP_ROUTING_HEADER, change: header(nextRouting, routing(4))},
				{name: "routing behind options", reason: bpf.RouterDropReasonDROP_ROUTING_HEADER, change: func(w *world, s *shot) {
					header(nextRouting, routing(0))(w, s)
					header(nextDestination, options(0, 8))(w, s)
				}},
				{name: "four headers", change: chain(4), to: toServer},
				{name: "five headers", change: chain(5), reason: bpf.RouterDropReasonDROP_HEADER_CHAIN},
				{name: "options of 2048 bytes", change: header(nextDestination, options(0, 2048)), reason: bpf.RouterDropReasonDROP_TOO_BIG,
					frame: func(w *world, s shot) []byte { return errorAnswer(w, s, icmpTooBig, 0, testMTU) }},
				{name: "options longer than the packet", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(w *world, s *shot) {
					header(nextDestination, options(0, 8))(w, s)
					s.frame[offsetL4+1] = 20
				}},
				{name: "options cut", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(w *world, s *shot) {
					header(nextDestination, options(0, 8))(w, s)
					cut(7)(w, s)
				}},
				{name: "from no port", reason: bpf.RouterDropReasonDROP_UNKNOWN_PORT, change: func(_ *world, s *shot) { s.ifindex = devices[len(devices)-1] }},
				{name: "from a port of a kind without rules", reason: bpf.RouterDropReasonDROP_UNKNOWN_PORT, world: func(w *world) {
					w.setPort(bpf.RouterPort{
						Ifindex: w.client.ifindex, Network: uint32(red), Host: uint32(thisHost), Machine: uint32(w.client.machine),
						Counters: w.client.counters, Mtu: testMTU, Kind: uint8(bpf.RouterPortKindPORT_MESH),
					})
				}},
			},
		},
		{
			name: "parse udp",
			shot: func(w *world) shot {
				return from(w.client, w.server.addr(), protocolUDP, udp(40000, 53, make([]byte, 40)...))
			},
			to: toServer,
			rows: []row{
				{name: "length shorter than the packet", change: func(_ *world, s *shot) {
					s.frame[offsetL4+5] = 30
					seal(s.frame[:offsetL4+30])
				}, to: toServer},
				{name: "length longer than the packet", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: set(offsetL4+5, 49)},
				{name: "length 7", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: set(offsetL4+5, 7)},
				{name: "length 0", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: set(offsetL4+5, 0)},
				{name: "shorter than its header", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: cut(7)},
				{name: "icmp shorter than its header", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(w *world, s *shot) {
					s.frame[offsetNext] = protocolICMP
					cut(7)(w, s)
				}},
				{name: "no next header, padded to the shortest frame", change: func(w *world, s *shot) {
					s.frame[offsetNext] = nextNone
					s.frame = s.frame[:60]
					s.frame[offsetPayload+1] = 0
				}, to: toServer},
				{name: "padded beyond the shortest frame", reason: bpf.RouterDropReasonDROP_BAD_LENGTH, change: func(w *world, s *shot) {
					s.frame[offsetNext] = nextNone
					s.frame = s.frame[:61]
					s.frame[offsetPayload+1] = 0
				}},
				{name: "a protocol of no interest", change: set(offsetNext, 132), to: toServer},
				{name: "whole in one fragment", change: header(nextFragment, fragment(0, 0, false)), to: toServer},
				{name: "first fragment", change: header(nextFragment, fragment(0, 0, true)), to: toServer},
				{name: "first fragment of a longer datagram", change: func(w *world, s *shot) {
					s.frame[offsetL4+4] = 9
					header(nextFragment, fragment(0, 0, true))(w, s)
				}, to: toServer},
				{name: "first fragment of a cut udp header", reason: bpf.RouterDropReasonDROP_FIRST_FRAGMENT, change: func(w *world, s *shot) {
					header(nextFragment, fragment(0, 0, true))(w, s)
					cut(8+7)(w, s)
				}},
				{name: "first fragment of a cut tcp header", reason: bpf.RouterDropReasonDROP_FIRST_FRAGMENT, change: func(w *world, s *shot) {
					s.frame[offsetNext] = protocolTCP
					s.frame[offsetL4+12] = 8 << 4
					header(nextFragment, fragment(0, 0, true))(w, s)
					cut(8+31)(w, s)
				}},
				{name: "first fragment that ends in options", reason: bpf.RouterDropReasonDROP_FIRST_FRAGMENT, change: func(w *world, s *shot) {
					header(nextDestination, options(0, 16))(w, s)
					header(nextFragment, fragment(0, 0, true))(w, s)
					cut(8+8)(w, s)
				}},
				{name: "later fragment", change: header(nextFragment, fragment(0, 1448, true)), to: toServer},
				{name: "last fragment", change: header(nextFragment, fragment(0, 1448, false)), to: toServer},
				{name: "fragment in a fragment", reason: bpf.RouterDropReasonDROP_HEADER_CHAIN, change: func(w *world, s *shot) {
					header(nextFragment, fragment(0, 0, true))(w, s)
					header(nextFragment, fragment(0, 0, true))(w, s)
				}},
			},
		},
	}
}

// chain puts so many headers of options before the transport header.
func chain(length int) func(*world, *shot) {
	return func(w *world, s *shot) {
		for range length {
			header(nextDestination, options(0, 8))(w, s)
		}
	}
}
