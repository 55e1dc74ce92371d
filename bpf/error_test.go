package bpf_test

import (
	"net/netip"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// complaint is an ICMPv6 error of a member about a packet, to who seems to have sent it.
func complaint(m *member, kind uint8, word uint32, quote []byte) shot {
	source, _ := netip.AddrFromSlice(quote[8:24])
	return from(m, source, protocolICMP, icmp(kind, 0, word, quote...))
}

// aboutForward is the server's error about a segment that the client sent to the VIP.
func aboutForward(w *world) shot {
	_, received := w.fire(stream(w, flagACK|flagPSH, make([]byte, 300)...))
	return complaint(w.server, icmpTooBig, 1280, received[offsetIP:])
}

// aboutReply is the client's error about a segment that came from the VIP.
func aboutReply(w *world) shot {
	_, received := w.fire(reply(w, streamSlot(), flagACK|flagPSH, make([]byte, 300)...))
	return complaint(w.client, icmpTooBig, 1280, received[offsetIP:])
}

const (
	offsetQuote       = offsetL4 + 8
	offsetQuoteSource = offsetQuote + 8
	offsetQuoteTarget = offsetQuote + 24
	offsetQuoteL4     = offsetQuote + 40
)

// requoted is an error with another pair, outside and, turned round, inside.
func requoted(s shot, to *member, source, destination netip.AddrPort) []byte {
	frame := plain(s.frame, to)
	setAddress(frame, offsetSource, source.Addr())
	setAddress(frame, offsetTarget, destination.Addr())
	setAddress(frame, offsetQuoteSource, destination.Addr())
	setAddress(frame, offsetQuoteTarget, source.Addr())
	quote := frame[offsetQuoteL4:]
	quote[0], quote[1] = byte(destination.Port()>>8), byte(destination.Port())
	quote[2], quote[3] = byte(source.Port()>>8), byte(source.Port())
	field := checksumOffset(frame[offsetQuote+6])
	// As far as the quote reaches, it is again what the receiver sent; shorter ones keep their bytes.
	if len(quote) >= field+2 {
		sum := uint64(^port(s.frame[offsetQuoteL4:], field)) + 0xffff*20 +
			sumWords(frame[offsetQuoteSource:offsetQuoteL4+4]) - sumWords(s.frame[offsetQuoteSource:offsetQuoteL4+4])
		folded := ^foldSum(sum)
		quote[field], quote[field+1] = byte(folded>>8), byte(folded)
	}
	return seal(frame)
}

func backToClient(w *world, s shot) []byte {
	inner := uint16(vipPort)
	if s.frame[offsetQuote+6] == protocolUDP {
		inner = datagramPort
	}
	return requoted(s, w.client, netip.AddrPortFrom(vip(), inner), netip.AddrPortFrom(w.client.addr(), clientPort))
}

func backToServer(w *world, s shot) []byte {
	return requoted(s, w.server, netip.AddrPortFrom(w.client.low(streamSlot()), clientPort), netip.AddrPortFrom(w.server.addr(), backendPort))
}

// quoteOnly shortens an error to so many bytes of quote.
func quoteOnly(length int) func(*world, *shot) {
	return func(_ *world, s *shot) { s.frame = seal(setLength(s.frame[:offsetQuote+length])) }
}

func quoteByte(offset int, by byte) func(*world, *shot) {
	return func(_ *world, s *shot) { s.frame[offset] += by; seal(s.frame) }
}

// sharedErrorRows hold for every error, whoever sends it.
func sharedErrorRows() []row {
	const unmatched = bpf.RouterDropReasonDROP_UNMATCHED_ERROR
	return []row{
		{name: "quote ends before the ports", reason: unmatched, change: quoteOnly(43)},
		{name: "no quote", reason: unmatched, change: quoteOnly(0)},
		{name: "quote of ipv4", reason: unmatched, change: quoteByte(offsetQuote, 0xe0)},
		{name: "quoted destination is a neighbour", reason: unmatched, change: quoteByte(offsetQuoteTarget+13, 1)},
		{name: "quoted destination is another network's", reason: unmatched, change: quoteByte(offsetQuoteTarget+5, 1)},
		{name: "quoted source is another machine", reason: unmatched, change: quoteByte(offsetQuoteSource+13, 1)},
		{name: "quoted source is another network's", reason: unmatched, change: quoteByte(offsetQuoteSource+5, 1)},
		{name: "whole in one fragment", reason: unmatched, change: header(nextFragment, fragment(0, 0, false))},
		{name: "behind options", reason: unmatched, change: header(nextDestination, options(0, 8))},
	}
}

func errorTables() []table {
	established := func(w *world) { flycastWorld(w); begun(w) }
	toOrigin := []row{
		{name: "unreachable", change: kind(icmpUnreachable), to: toClient, frame: backToClient},
		{name: "time exceeded", change: kind(icmpTimeExceeded), to: toClient, frame: backToClient},
		{name: "parameter problem", change: kind(icmpParameter), to: toClient, frame: backToClient},
		{name: "an error of no name", change: kind(100), to: toClient, frame: backToClient},
		{name: "quote of 8 bytes of tcp", change: quoteOnly(48), to: toClient, frame: backToClient},
		{name: "quote up to the ports", change: quoteOnly(44), to: toClient, frame: backToClient},
		{name: "from another address of the backend", change: func(w *world, s *shot) { source(w.server.low(otherLow))(w, s) }, to: toClient, frame: backToClient},
		{name: "with a complete checksum", reason: 0, change: func(_ *world, s *shot) { s.flags = checksumComplete }, to: toClient, frame: backToClient},
		{name: "hop limit 1", reason: bpf.RouterDropReasonDROP_HOP_LIMIT, change: set(offsetHop, 1)},
		// About no flow: plain, as every error within the network.
		{name: "other port quoted", change: quoteByte(offsetQuoteL4+1, 1), to: toClient},
		{name: "other backend port quoted", change: quoteByte(offsetQuoteL4+3, 1), to: toClient},
		{name: "other slot quoted", change: quoteByte(offsetQuoteSource+15, 1), to: toClient},
		{name: "other protocol quoted", change: quoteByte(offsetQuote+6, 1), to: toClient},
		{name: "about a datagram", change: func(w *world, s *shot) {
			_, received := w.fire(datagram(w))
			*s = complaint(w.server, icmpUnreachable, 0, received[offsetIP:])
		}, to: toClient, frame: backToClient},
	}
	return []table{{
		name: "error about a segment to a vip", world: established, shot: aboutForward, to: toClient, frame: backToClient,
		rows: append(toOrigin, sharedErrorRows()...),
	}, {
		name: "error about a segment from a vip", world: established, shot: aboutReply, to: toServer, frame: backToServer,
		rows: append([]row{
			{name: "quote of 8 bytes of tcp", change: quoteOnly(48), to: toServer, frame: backToServer},
			{name: "other vip port quoted", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: quoteByte(offsetQuoteL4+1, 1)},
			{name: "other client port quoted", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: quoteByte(offsetQuoteL4+3, 1)},
			{name: "other vip quoted", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: quoteByte(offsetQuoteSource+15, 1)},
			{name: "other address of the client quoted", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: quoteByte(offsetQuoteTarget+15, 1)},
			{name: "to another network's vip", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: func(w *world, s *shot) {
				setAddress(s.frame, offsetQuoteSource, sixpn.VIPAddr(blue, testVIP))
				target(sixpn.VIPAddr(blue, testVIP))(w, s)
			}},
			{name: "in the second slot", world: func(w *world) {
				w.empty(w.Flows)
				w.quota(red, 0, 10)
				w.quota(red, w.client.machine, 10)
				w.put(w.BackendLoad, uint32(streamBackend), bpf.RouterLoad{Generation: 7})
				takeSlots(1)(w)
				w.begin(stream(w, flagSYN))
			}, to: toServer, frame: func(w *world, s shot) []byte {
				return requoted(s, w.server, netip.AddrPortFrom(w.client.low(slot(linkLow, testVIP, vipPort, 1)), clientPort),
					netip.AddrPortFrom(w.server.addr(), backendPort))
			}},
		}, sharedErrorRows()...),
	}, {
		name: "error across networks", world: func(w *world) { flycastWorld(w); crossNetwork(w); w.begin(stream(w, flagSYN)) },
		shot: func(w *world) shot {
			_, received := w.fire(stream(w, flagACK, 1, 2))
			return complaint(w.foreign, icmpUnreachable, 0, received[offsetIP:])
		},
		to: toClient, frame: backToClient,
		rows: []row{
			{name: "about no flow", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: quoteByte(offsetQuoteL4+1, 1)},
			{name: "about another port of the backend", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: quoteByte(offsetQuoteL4+3, 1)},
			{name: "quoted destination is another machine", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: quoteByte(offsetQuoteTarget+13, 1)},
			{name: "echo instead", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: kind(icmpEcho)},
		},
	}, {
		name: "error about oneself through a vip", world: func(w *world) { flycastWorld(w); streamBackendOf(toClient)(w); w.begin(stream(w, flagSYN)) },
		shot: func(w *world) shot {
			_, received := w.fire(stream(w, flagSYN))
			return complaint(w.client, icmpUnreachable, 0, received[offsetIP:])
		},
		to: toClient, frame: backToClient,
		rows: []row{
			{name: "about no flow", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: quoteByte(offsetQuoteL4+1, 1)},
			{name: "about the reply", change: func(w *world, s *shot) {
				_, received := w.fire(selfReply(w, streamSlot()))
				*s = complaint(w.client, icmpUnreachable, 0, received[offsetIP:])
			}, to: toClient, frame: func(w *world, s shot) []byte {
				return requoted(s, w.client, netip.AddrPortFrom(w.client.own(streamSlot()), clientPort), netip.AddrPortFrom(w.client.addr(), backendPort))
			}},
		},
	}, {
		name: "error about plain traffic",
		shot: func(w *world) shot {
			return complaint(w.server, icmpUnreachable, 0, ipv6(w.client.addr(), w.server.addr(), protocolUDP, udp(1, 2)))
		},
		to: toClient,
		rows: slices.Concat(sharedErrorRows()[:7], []row{
			{name: "about another network's traffic", reason: bpf.RouterDropReasonDROP_OTHER_NETWORK, change: func(w *world, s *shot) {
				*s = complaint(w.server, icmpUnreachable, 0, ipv6(w.foreign.addr(), w.server.addr(), protocolUDP, udp(1, 2)))
			}},
			{name: "about a name's answer", change: func(w *world, s *shot) {
				*s = complaint(w.server, icmpUnreachable, 0, ipv6(sixpn.DNS, w.server.addr(), protocolUDP, udp(53, 2)))
			}, to: toPrivate, frame: toHost},
			{name: "about the agent's connection", change: func(w *world, s *shot) {
				*s = complaint(w.server, icmpUnreachable, 0, ipv6(sixpn.AgentAddr(red, thisHost), w.server.addr(), protocolTCP, tcp(1, 2, 0, 0, 0)))
			}, to: toPrivate, frame: toHost},
			{name: "by the agent", change: func(w *world, s *shot) {
				*s = fromAs(w.private, sixpn.AgentAddr(red, thisHost), w.client.addr(), protocolICMP,
					icmp(icmpUnreachable, 0, 0, ipv6(w.client.addr(), sixpn.AgentAddr(red, thisHost), protocolUDP, udp(1, 2))...))
			}, to: toClient},
			{name: "by the agent, about another machine's", reason: bpf.RouterDropReasonDROP_UNMATCHED_ERROR, change: func(w *world, s *shot) {
				*s = fromAs(w.private, sixpn.AgentAddr(red, thisHost), w.client.addr(), protocolICMP,
					icmp(icmpUnreachable, 0, 0, ipv6(w.server.addr(), sixpn.AgentAddr(red, thisHost), protocolUDP, udp(1, 2))...))
			}},
		}),
	}}
}
