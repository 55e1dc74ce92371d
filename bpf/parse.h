/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* parse.h reads the headers once and refuses what is not what it says it is. */
#ifndef SIXPN_PARSE_H
#define SIXPN_PARSE_H

#include <linux/icmpv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "ctx.h"

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_DESTINATION 60

#define MAX_EXTENSION_HEADERS 4

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Shortest frame a sender pads to: what is behind the packet in it is no sign of forgery. */
#define MIN_FRAME 60

static __always_inline void load_address(struct address *address, const void *raw)
{
	address->prefix = bpf_ntohs(*(const __be16 *)raw);
	address->network = bpf_ntohl(*(const __be32 *)(raw + 2));
	address->host = bpf_ntohl(*(const __be32 *)(raw + 6));
	address->machine = bpf_ntohl(*(const __be32 *)(raw + 10));
	address->low = bpf_ntohs(*(const __be16 *)(raw + 14));
}

/*
 * Walks destination options and the fragment header, the two that may pass.
 * Returns DROP_NONE with l4, protocol and fragment set. Not inlined: packets
 * with extension headers are rare, and their loop is long for the verifier.
 */
__noinline int parse_extensions(context *ctx, struct packet *packet)
{
	__u32 offset = L4;
	__u8 next;

	if (!packet)
		return DROP_INTERNAL;
	next = packet->protocol;

	for (int i = 0; i <= MAX_EXTENSION_HEADERS; i++) {
		struct {
			__u8 next;
			__u8 length;
			__be16 offset;
			__be32 id;
		} header;

		switch (next) {
		case NEXT_HOP_BY_HOP:
			/* MLD comes with a router alert; it is noise, not a game. */
			if (i == 0 && packet->destination.prefix >> 8 == 0xff &&
			    !load_bytes(ctx, offset, &header, sizeof(header)) && header.next == IPPROTO_ICMPV6)
				return DROP_MULTICAST_NOISE;
			return DROP_HOP_BY_HOP;
		case NEXT_ROUTING:
			return DROP_ROUTING_HEADER;
		case NEXT_DESTINATION:
		case NEXT_FRAGMENT:
			break;
		default:
			packet->protocol = next;
			packet->l4 = offset;
			return DROP_NONE;
		}
		if (i == MAX_EXTENSION_HEADERS)
			return DROP_HEADER_CHAIN;
		if (offset + sizeof(header) > L4 + (__u32)packet->payload ||
		    load_bytes(ctx, offset, &header, sizeof(header)))
			return packet->fragment ? DROP_FIRST_FRAGMENT : DROP_BAD_LENGTH;
		if (next == NEXT_FRAGMENT) {
			__u16 position = bpf_ntohs(header.offset);

			/* A fragment inside a fragment is nobody's honest traffic. */
			if (packet->fragment)
				return DROP_HEADER_CHAIN;
			packet->fragment = FRAGMENT_FIRST;
			offset += sizeof(header);
			if (position & 0xfff8) {
				packet->fragment = FRAGMENT_LATER;
				packet->protocol = header.next;
				packet->l4 = offset;
				return DROP_NONE;
			}
		} else {
			offset += 8 + 8 * (__u32)header.length;
		}
		next = header.next;
		if (offset > L4 + (__u32)packet->payload)
			return packet->fragment ? DROP_FIRST_FRAGMENT : DROP_BAD_LENGTH;
	}
	return DROP_HEADER_CHAIN;
}

/* Reads ports, flags and type. `left` is what the packet has from l4 on. */
static __always_inline int parse_transport(context *ctx, struct packet *packet)
{
	__u32 l4 = packet->l4, left = L4 + packet->payload - l4;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	int cut = packet->fragment ? DROP_FIRST_FRAGMENT : DROP_BAD_LENGTH;

	/* parse_extensions keeps l4 within the packet; the verifier wants a bound. */
	if (l4 > L4 + 8 * 260)
		return DROP_HEADER_CHAIN;

	switch (packet->protocol) {
	case IPPROTO_TCP: {
		struct tcphdr *tcp = data + l4;

		if (left < sizeof(*tcp) || (void *)(tcp + 1) > end)
			return cut;
		packet->source_port = bpf_ntohs(tcp->source);
		packet->destination_port = bpf_ntohs(tcp->dest);
		packet->tcp_flags = ((__u8 *)tcp)[13];
		packet->tcp_length = (((__u8 *)tcp)[12] >> 4) * 4;
		if (packet->tcp_length < sizeof(*tcp) || packet->tcp_length > left)
			return packet->tcp_length < sizeof(*tcp) ? DROP_BAD_LENGTH : cut;
		return DROP_NONE;
	}
	case IPPROTO_UDP: {
		struct udphdr *udp = data + l4;
		__u32 length;

		if (left < sizeof(*udp) || (void *)(udp + 1) > end)
			return cut;
		packet->source_port = bpf_ntohs(udp->source);
		packet->destination_port = bpf_ntohs(udp->dest);
		length = bpf_ntohs(udp->len);
		/* A first fragment holds only the beginning of its datagram. */
		if (length < sizeof(*udp) || (length > left && !packet->fragment))
			return DROP_BAD_LENGTH;
		return DROP_NONE;
	}
	case IPPROTO_ICMPV6: {
		struct icmp6hdr *icmp = data + l4;

		if (left < sizeof(*icmp) || (void *)(icmp + 1) > end)
			return cut;
		packet->icmp_type = icmp->icmp6_type;
		return DROP_NONE;
	}
	}
	return DROP_NONE;
}

/*
 * A sender behind a virtio header says where the kernel shall complete the
 * checksum. Anywhere but in the transport header would rewrite, after every
 * check was made, what the checks were made on.
 */
static __always_inline int parse_checksum(context *ctx, struct packet *packet)
{
	__u32 start = 0, field = 0, l4 = packet->l4;

	packet->checksum = checksum_state(ctx, &start, &field);
	if (packet->checksum != CHECKSUM_PARTIAL)
		return DROP_NONE;
	if (packet->fragment == FRAGMENT_LATER)
		return DROP_CHECKSUM_OFFLOAD;
	packet->checksum_start = start;
	packet->checksum_field = field;
	if (start != l4) {
		/* In a tunnel's payload; nothing there was checked, and it may not be translated. */
		if (packet->fragment || packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_ICMPV6 ||
		    start < l4 + 8 || field < start || field + 2 > packet->length)
			return DROP_CHECKSUM_OFFLOAD;
		packet->checksum = CHECKSUM_INNER;
		return DROP_NONE;
	}
	switch (packet->protocol) {
	case IPPROTO_TCP:
		return field == l4 + 16 ? DROP_NONE : DROP_CHECKSUM_OFFLOAD;
	case IPPROTO_UDP:
		return field == l4 + 6 ? DROP_NONE : DROP_CHECKSUM_OFFLOAD;
	case IPPROTO_ICMPV6:
		return field == l4 + 2 ? DROP_NONE : DROP_CHECKSUM_OFFLOAD;
	}
	return DROP_NONE;
}

static __always_inline int parse(context *ctx, struct packet *packet)
{
	void *data, *end;
	struct ethhdr *ethernet;
	struct ipv6hdr *ip;
	int reason;

	linearize(ctx, LINEAR);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ethernet = data;
	ip = data + L3;
	packet->length = frame_length(ctx);
	if (segment_size(ctx) && is_list(ctx))
		return DROP_CHECKSUM_OFFLOAD;

	if ((void *)(ethernet + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IPV6) || is_tagged(ctx))
		return DROP_NOT_IPV6;
	if ((void *)(ip + 1) > end)
		return DROP_BAD_LENGTH;
	if (ip->version != 6)
		return DROP_NOT_IPV6;
	packet->payload = bpf_ntohs(ip->payload_len);
	if (L4 + (__u32)packet->payload > packet->length ||
	    (L4 + (__u32)packet->payload < packet->length && packet->length > MIN_FRAME))
		return DROP_BAD_LENGTH;

	load_address(&packet->source, &ip->saddr);
	load_address(&packet->destination, &ip->daddr);
	packet->hop_limit = ip->hop_limit;
	packet->protocol = ip->nexthdr;
	packet->l4 = L4;

	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ICMPV6:
		break;
	default:
		reason = parse_extensions(ctx, packet);
		if (reason)
			return reason;
		linearize(ctx, packet->l4 + 20);
	}
	if (packet->fragment != FRAGMENT_LATER) {
		reason = parse_transport(ctx, packet);
		if (reason)
			return reason;
	}
	return parse_checksum(ctx, packet);
}

#endif
