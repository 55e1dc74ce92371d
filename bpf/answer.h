/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * answer.h turns a packet into the router's own answer to its sender: neighbour
 * advertisement, echo reply, TCP reset, ICMPv6 error. Every answer goes back out
 * of the port that the packet came in by.
 */
#ifndef SIXPN_ANSWER_H
#define SIXPN_ANSWER_H

#include "admit.h"
#include "checksum.h"
#include "count.h"

#define ICMP_UNREACHABLE 1
#define ICMP_PACKET_TOO_BIG 2
#define ICMP_TIME_EXCEEDED 3
#define CODE_ADDRESS_UNREACHABLE 3
#define CODE_PORT_UNREACHABLE 4

#define ROUTER_HOP_LIMIT 64

/* An error quotes as much as fits into the minimum MTU (RFC 4443, 2.4 c). */
#define MAX_QUOTE (1280 - 40 - 8)

/* Alignment, which the stack wants, is given to variables: in a type it would pad the type. */
struct headers {
	struct ethhdr ethernet;
	struct ipv6hdr ip;
} __attribute__((packed, aligned(2)));

/*
 * Who answers on the link: the router, and on the uplink whom the previous hop takes the
 * host for.
 */
static __always_inline const __u8 *answering_mac(const struct ethhdr *asked, const struct port *port)
{
	return port->kind == PORT_UPLINK ? asked->h_dest : port->mac;
}

/* A card's sum of the whole frame, which is not kept for answers but on the uplink, where cards are. */
static __always_inline int is_summed(const struct packet *packet, const struct port *port)
{
	return packet->checksum == CHECKSUM_COMPLETE && port->kind != PORT_UPLINK;
}

/* Writes over the beginning of the frame. A sum of all of it begins behind the Ethernet header. */
static __always_inline int overwrite(struct __sk_buff *skb, const void *from, __u32 bytes)
{
	return bpf_skb_store_bytes(skb, 0, from, L3, 0) ||
	       bpf_skb_store_bytes(skb, L3, from + L3, bytes - L3, BPF_F_RECOMPUTE_CSUM);
}

/* Fills Ethernet and IPv6 headers of an answer; addresses are the caller's. */
static __always_inline void fill_headers(struct headers *headers, const struct ethhdr *asked, const struct port *port,
					 __u16 payload, __u8 protocol, __u8 hop_limit)
{
	__builtin_memset(headers, 0, sizeof(*headers));
	__builtin_memcpy(headers->ethernet.h_dest, asked->h_source, ETH_ALEN);
	__builtin_memcpy(headers->ethernet.h_source, answering_mac(asked, port), ETH_ALEN);
	headers->ethernet.h_proto = bpf_htons(ETH_P_IPV6);
	headers->ip.version = 6;
	headers->ip.payload_len = bpf_htons(payload);
	headers->ip.nexthdr = protocol;
	headers->ip.hop_limit = hop_limit;
}

/* RFC 4861, 7.2.4: a solicited advertisement of fe80::1 with the port's link-layer address. */
__noinline int answer_neighbour(struct __sk_buff *skb, struct packet *packet, struct port *port)
{
	struct {
		struct headers headers;
		struct icmp6hdr icmp;
		__be32 target[4];
		__u8 option[2];
		__u8 mac[ETH_ALEN];
	} __attribute__((packed)) answer __attribute__((aligned(8)));
	struct headers asked;
	__u64 sum = 0;
	__be16 *words = (void *)&answer + L3 + 8; /* from the source address on */

	if (!packet || !port || packet->checksum == CHECKSUM_PARTIAL || packet->checksum == CHECKSUM_COMPLETE ||
	    bpf_skb_load_bytes(skb, 0, &asked, sizeof(asked)))
		return DROP_INTERNAL;
	__builtin_memset(&answer, 0, sizeof(answer));
	fill_headers(&answer.headers, &asked.ethernet, port, 32, IPPROTO_ICMPV6, 255);
	answer.headers.ip.saddr.in6_u.u6_addr32[0] = bpf_htonl(0xfe800000);
	answer.headers.ip.saddr.in6_u.u6_addr32[3] = bpf_htonl(1);
	answer.headers.ip.daddr = asked.ip.saddr;
	answer.icmp.icmp6_type = ICMP_NEIGHBOUR_ADVERTISEMENT;
	answer.icmp.icmp6_dataun.un_data32[0] = bpf_htonl(0xe0000000); /* router, solicited, override */
	answer.target[0] = bpf_htonl(0xfe800000);
	answer.target[3] = bpf_htonl(1);
	answer.option[0] = 2; /* target link-layer address */
	answer.option[1] = 1; /* of 8 bytes */
	__builtin_memcpy(answer.mac, port->mac, ETH_ALEN);
	for (int i = 0; i < (32 + 32) / 2; i++)
		sum += bpf_ntohs(words[i]);
	answer.icmp.icmp6_cksum = bpf_htons(~fold(sum + 32 + IPPROTO_ICMPV6));
	if (bpf_skb_change_tail(skb, sizeof(answer), 0) || bpf_skb_store_bytes(skb, 0, &answer, sizeof(answer), 0))
		return DROP_INTERNAL;
	return DROP_NONE;
}

/* RFC 4443, 4.2. Two words move and one changes by 0x0100, so the checksum needs no other reading. */
__noinline int answer_echo(struct __sk_buff *skb, struct packet *packet, struct port *port)
{
	struct {
		struct headers headers;
		struct icmp6hdr icmp;
	} __attribute__((packed)) echo __attribute__((aligned(8)));
	struct ethhdr asked;
	struct in6_addr source;

	if (!packet || !port || is_summed(packet, port) || bpf_skb_load_bytes(skb, 0, &echo, sizeof(echo)))
		return DROP_INTERNAL;
	asked = echo.headers.ethernet;
	__builtin_memcpy(echo.headers.ethernet.h_dest, asked.h_source, ETH_ALEN);
	__builtin_memcpy(echo.headers.ethernet.h_source, answering_mac(&asked, port), ETH_ALEN);
	source = echo.headers.ip.saddr;
	echo.headers.ip.saddr = echo.headers.ip.daddr;
	echo.headers.ip.daddr = source;
	echo.headers.ip.hop_limit = ROUTER_HOP_LIMIT;
	echo.icmp.icmp6_type = ICMP_ECHO_REPLY;
	if (packet->checksum != CHECKSUM_PARTIAL)
		echo.icmp.icmp6_cksum = bpf_htons(
			checksum_adjust(bpf_ntohs(echo.icmp.icmp6_cksum), (ICMP_ECHO_REPLY - ICMP_ECHO_REQUEST) << 8));
	return overwrite(skb, &echo, sizeof(echo)) ? DROP_INTERNAL : DROP_NONE;
}

/* RFC 9293, 3.5.2: in the name of the address that was asked. */
__noinline int answer_reset(struct __sk_buff *skb, struct packet *packet, struct port *port)
{
	struct {
		struct headers headers;
		struct tcphdr tcp;
	} __attribute__((packed)) asked __attribute__((aligned(8))), answer __attribute__((aligned(8)));
	__u32 length, sum;
	__be16 *words = (void *)&answer + L4;

	if (!packet || !port || packet->tcp_flags & TCP_RST || packet->checksum == CHECKSUM_COMPLETE ||
	    packet->l4 != L4 || bpf_skb_load_bytes(skb, 0, &asked, sizeof(asked)))
		return DROP_INTERNAL;
	__builtin_memset(&answer, 0, sizeof(answer));
	fill_headers(&answer.headers, &asked.headers.ethernet, port, sizeof(answer.tcp), IPPROTO_TCP, ROUTER_HOP_LIMIT);
	answer.headers.ip.saddr = asked.headers.ip.daddr;
	answer.headers.ip.daddr = asked.headers.ip.saddr;
	answer.tcp.source = asked.tcp.dest;
	answer.tcp.dest = asked.tcp.source;
	answer.tcp.doff = sizeof(answer.tcp) / 4;
	answer.tcp.rst = 1;
	if (asked.tcp.ack) {
		answer.tcp.seq = asked.tcp.ack_seq;
	} else {
		length = packet->payload - packet->tcp_length + asked.tcp.syn + asked.tcp.fin;
		answer.tcp.ack = 1;
		answer.tcp.ack_seq = bpf_htonl(bpf_ntohl(asked.tcp.seq) + length);
	}
	sum = pseudo_sum(&packet->source, &packet->destination, sizeof(answer.tcp), IPPROTO_TCP);
	if (packet->checksum == CHECKSUM_PARTIAL) {
		answer.tcp.check = bpf_htons(fold(sum));
	} else {
		for (int i = 0; i < (int)sizeof(answer.tcp) / 2; i++)
			sum += bpf_ntohs(words[i]);
		answer.tcp.check = bpf_htons(~fold(sum));
	}
	if (bpf_skb_change_tail(skb, sizeof(answer), 0) || bpf_skb_store_bytes(skb, 0, &answer, sizeof(answer), 0))
		return DROP_INTERNAL;
	return DROP_NONE;
}

/*
 * Makes room for `bytes` before the packet whose headers are `asked`. A device without
 * link layer is given what begins at the network header as the kernel knows it, which
 * has to move with the room there.
 */
static __always_inline int make_room(struct __sk_buff *skb, const struct port *port, __u32 bytes,
				     const struct headers *asked)
{
	const struct ethhdr nothing = {};

	if (port->kind == PORT_UPLINK) /* the old header becomes part of what a sum of the frame is of */
		return bpf_skb_store_bytes(skb, 0, &nothing, sizeof(nothing), 0) || bpf_skb_change_head(skb, bytes, 0);
	if (port->kind != PORT_MESH)
		return bpf_skb_change_head(skb, bytes, 0);
	/* Where the kernel sees the end of the link-layer header, the room may cut the packet's own. */
	return bpf_skb_adjust_room(skb, bytes, BPF_ADJ_ROOM_MAC, 0) ||
	       bpf_skb_store_bytes(skb, L3 + bytes, (const void *)asked + L3, sizeof(asked->ip), 0);
}

/*
 * RFC 4443, 2.4 and 3: from the agent's address in the sender's network. A packet
 * whose checksum the kernel still has to complete keeps that mark inside the
 * quote, so the sum counts what will stand there: the complement of what the
 * field holds now.
 */
__noinline int answer_error(struct __sk_buff *skb, struct packet *packet, struct port *port, __u32 type_code)
{
	struct {
		struct headers headers;
		struct icmp6hdr icmp;
	} __attribute__((packed)) answer __attribute__((aligned(8)));
	struct headers asked;
	struct address agent;
	__u32 quote;
	__u64 sum;

	if (!packet || !port || is_summed(packet, port) || packet->fragment == FRAGMENT_LATER)
		return DROP_INTERNAL;
	if (packet->protocol == IPPROTO_ICMPV6 && packet->icmp_type < ICMP_ECHO_REQUEST)
		return DROP_INTERNAL;
	if (!may_have_error(port, packet->source.network))
		return DROP_INTERNAL;
	if (bpf_skb_load_bytes(skb, 0, &asked, sizeof(asked)))
		return DROP_INTERNAL;

	quote = 40 + packet->payload;
	if (quote > MAX_QUOTE)
		quote = MAX_QUOTE;
	if (bpf_skb_change_tail(skb, L3 + quote, 0))
		return DROP_INTERNAL;

	set_agent(&agent, packet->source.network ?: packet->destination.network);
	fill_headers(&answer.headers, &asked.ethernet, port, 8 + quote, IPPROTO_ICMPV6, ROUTER_HOP_LIMIT);
	store_address(&answer.headers.ip.saddr, &agent);
	answer.headers.ip.daddr = asked.ip.saddr;
	__builtin_memset(&answer.icmp, 0, sizeof(answer.icmp));
	answer.icmp.icmp6_type = type_code >> 8;
	answer.icmp.icmp6_code = type_code & 0xff;
	if (answer.icmp.icmp6_type == ICMP_PACKET_TOO_BIG)
		answer.icmp.icmp6_dataun.un_data32[0] = bpf_htonl(packet->mtu);

	sum = pseudo_sum(&agent, &packet->source, 8 + quote, IPPROTO_ICMPV6) + (type_code & 0xffff) +
	      bpf_ntohl(answer.icmp.icmp6_dataun.un_data32[0]);
	if (packet->checksum == CHECKSUM_PARTIAL || packet->checksum == CHECKSUM_INNER) {
		__be16 seed;

		/* SCTP's is no sum. bpf_skb_change_tail leaves the field in, or fails. */
		if (packet->protocol == IPPROTO_SCTP || packet->checksum_start < L3 ||
		    bpf_skb_load_bytes(skb, packet->checksum_field, &seed, sizeof(seed)))
			return DROP_INTERNAL;
		sum += frame_sum(skb, L3, packet->checksum_start - L3) + (__u16)~bpf_ntohs(seed);
	} else {
		sum += frame_sum(skb, L3, quote);
	}
	answer.icmp.icmp6_cksum = bpf_htons(~fold(sum));

	/* The old Ethernet header is overwritten: 48 new bytes are the new headers. */
	if (make_room(skb, port, sizeof(answer) - ETH_HLEN, &asked) || overwrite(skb, &answer, sizeof(answer)))
		return DROP_INTERNAL;
	return DROP_NONE;
}

/*
 * Answers a packet that is not forwarded, where its sender should know. 1: the
 * frame is now the answer. The reason was counted before.
 */
static __always_inline int answer(struct __sk_buff *skb, struct packet *packet, struct port *port, int reason)
{
	switch (reason) {
	case ANSWER_NEIGHBOUR:
		return !answer_neighbour(skb, packet, port);
	case ANSWER_ECHO:
		return !answer_echo(skb, packet, port);
	case DROP_NO_SERVICE:
	case DROP_NO_BACKEND:
	case DROP_REFUSED:
	case DROP_NO_FLOW:
	case DROP_BACKEND_GONE:
		if (packet->protocol == IPPROTO_TCP)
			return !answer_reset(skb, packet, port);
		return !answer_error(skb, packet, port, ICMP_UNREACHABLE << 8 | CODE_PORT_UNREACHABLE);
	case DROP_NO_VIP:
	case DROP_NO_MACHINE:
		return !answer_error(skb, packet, port, ICMP_UNREACHABLE << 8 | CODE_ADDRESS_UNREACHABLE);
	case DROP_TOO_BIG:
		return !answer_error(skb, packet, port, ICMP_PACKET_TOO_BIG << 8);
	case DROP_HOP_LIMIT:
		return !answer_error(skb, packet, port, ICMP_TIME_EXCEEDED << 8);
	}
	return 0;
}

#endif
