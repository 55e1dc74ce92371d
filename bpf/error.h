/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * error.h resolves an ICMPv6 error by the packet that it quotes (RFC 4443): who
 * may send it, and whose flow it is about, in which case the quote is translated
 * with it.
 */
#ifndef SIXPN_ERROR_H
#define SIXPN_ERROR_H

#include "checksum.h"
#include "flycast.h"

#define QUOTE (L4 + 8)
#define QUOTE_READ (40 + 4) /* up to the ports */

struct quote {
	struct address source;
	struct address destination;
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
};

static __always_inline int is_error(const struct packet *packet)
{
	return packet->protocol == IPPROTO_ICMPV6 && packet->icmp_type < ICMP_ECHO_REQUEST &&
	       packet->fragment != FRAGMENT_LATER;
}

static __always_inline __u32 quote_sum(const struct quote *quote)
{
	return pair_sum(&quote->source, &quote->destination) + quote->source_port + quote->destination_port;
}

/* Writes an address into the frame. */
static __noinline int put_address(struct __sk_buff *skb, __u32 offset, const struct address *address)
{
	/* From 2 on, the fields are where the stack wants them. */
	__u8 raw[20] __attribute__((aligned(4)));

	store_address(raw + 2, address);
	return bpf_skb_store_bytes(skb, offset, raw + 2, 16, 0);
}

/* Writes the new quote. Its own checksum absorbs the change where the quote reaches that far, else the error's does. */
static __noinline int write_quote(struct __sk_buff *skb, const struct packet *packet, const struct quote *old,
				       const struct quote *new)
{
	__be16 ports[2] = { bpf_htons(new->source_port), bpf_htons(new->destination_port) };
	__u32 difference = CHECKSUM_ZERO - quote_sum(old) + quote_sum(new);
	__u32 field = QUOTE + 40 + (old->protocol == IPPROTO_TCP ? 16 : 6);
	__be16 checksum;

	if (put_address(skb, QUOTE + 8, &new->source) || put_address(skb, QUOTE + 24, &new->destination) ||
	    bpf_skb_store_bytes(skb, QUOTE + 40, ports, sizeof(ports), 0))
		return DROP_INTERNAL;
	if (field + 2 > L4 + (__u32)packet->payload || bpf_skb_load_bytes(skb, field, &checksum, 2) || !checksum) {
		/* Until the kernel completes it, the field holds the pseudo header alone. */
		if (packet->checksum == CHECKSUM_PARTIAL)
			return DROP_NONE;
		field = L4 + 2;
		if (bpf_skb_load_bytes(skb, field, &checksum, 2))
			return DROP_INTERNAL;
	}
	checksum = bpf_htons(checksum_adjust(bpf_ntohs(checksum), difference));
	return bpf_skb_store_bytes(skb, field, &checksum, 2, 0) ? DROP_INTERNAL : DROP_NONE;
}

/* From a backend about what a client's flow sent it: 1 if there is such a flow. */
static __noinline int error_to_client(struct packet *packet, const struct quote *old, struct quote *new)
{
	struct flow_key key = {
		.network = old->source.network,
		.machine = old->source.machine,
		.port = old->source_port,
		.slot = old->source.low,
		.protocol = old->protocol,
	};
	struct flow copy;

	if (!flow_find(&key, &copy) || !is_backend(&copy, &old->destination, old->destination_port) ||
	    !(copy.flags & FLOW_OWN_BACKEND) != (old->source.host != HOST_OWN_BACKEND))
		return 0;
	packet->path = PATH_REPLY;
	packet->flags = copy.flags;
	set_vip(&packet->new_source, copy.key.network, copy.vip);
	packet->new_destination.host = host;
	packet->new_destination.low = copy.client_low;
	packet->difference = reply_change(packet);
	new->source = packet->new_destination;
	new->destination = packet->new_source;
	new->source_port = old->source_port;
	new->destination_port = copy.vip_port;
	return 1;
}

/* From a client about what a VIP sent it: 1 if that was a flow's reply. */
static __noinline int error_to_backend(struct packet *packet, const struct quote *old, struct quote *new)
{
	__u32 vip = vip_number(&old->source);
	__u64 slots = flow_slots(old->destination.low, vip, old->source_port);
	struct flow_key key = {
		.network = old->destination.network,
		.machine = old->destination.machine,
		.port = old->destination_port,
		.protocol = old->protocol,
	};

	for (__u32 probe = 0; probe < SLOT_PROBES; probe++) {
		struct flow copy;

		key.slot = flow_slot(slots, probe);
		if (!flow_find(&key, &copy) || copy.vip != vip || copy.vip_port != old->source_port ||
		    copy.client_low != old->destination.low)
			continue;
		packet->path = PATH_FORWARD;
		packet->flags = copy.flags;
		packet->new_source.low = copy.key.slot;
		if (copy.flags & FLOW_OWN_BACKEND)
			packet->new_source.host = HOST_OWN_BACKEND;
		packet->new_destination.network = copy.backend_network;
		packet->new_destination.host = copy.backend_host;
		packet->new_destination.machine = copy.backend_machine;
		packet->new_destination.low = LOW_MACHINE;
		packet->difference = forward_change(packet);
		new->source = packet->new_destination;
		new->destination = packet->new_source;
		new->source_port = copy.backend_port;
		new->destination_port = old->destination_port;
		return 1;
	}
	return 0;
}

__noinline int resolve_error(struct __sk_buff *skb, struct packet *packet, struct port *port)
{
	/* Two bytes ahead put the fields of the addresses on the stack's alignment. */
	struct {
		__u8 lead[2];
		__u8 ip[40];
		__be16 ports[2];
		__u8 trail[2];
	} __attribute__((aligned(4))) raw;
	struct quote old = {}, new = {};
	int to_vip, translated = 0;

	if (!packet || !port)
		return DROP_INTERNAL;
	if (packet->fragment || packet->l4 != L4 || packet->payload < 8 + QUOTE_READ ||
	    bpf_skb_load_bytes(skb, QUOTE, raw.ip, QUOTE_READ) || raw.ip[0] >> 4 != 6)
		return DROP_UNMATCHED_ERROR;
	load_address(&old.source, raw.ip + 8);
	load_address(&old.destination, raw.ip + 24);
	old.protocol = raw.ip[6];
	old.source_port = bpf_ntohs(raw.ports[0]);
	old.destination_port = bpf_ntohs(raw.ports[1]);
	new.protocol = old.protocol;

	/* A Machine may only complain of what was sent to it, and only to who sent it. */
	if (port->kind != PORT_HOST && !same_machine(&old.destination, &packet->source))
		return DROP_UNMATCHED_ERROR;
	to_vip = packet->destination.host == HOST_VIP;
	if (!same_machine(&old.source, &packet->destination) ||
	    (to_vip && old.source.low != packet->destination.low))
		return DROP_UNMATCHED_ERROR;

	if (port->kind != PORT_HOST && (old.protocol == IPPROTO_TCP || old.protocol == IPPROTO_UDP)) {
		if (to_vip && packet->destination.network == packet->source.network)
			translated = error_to_backend(packet, &old, &new);
		else if (old.source.low & SLOT_BIT &&
			 (old.source.host == host || old.source.host == HOST_OWN_BACKEND))
			translated = error_to_client(packet, &old, &new);
	}
	if (translated)
		return write_quote(skb, packet, &old, &new);
	return to_vip || packet->destination.host == HOST_OWN_BACKEND ? DROP_UNMATCHED_ERROR : DROP_NONE;
}

#endif
