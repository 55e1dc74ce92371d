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
#include "mesh.h"

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

/*
 * 1 if an allocation allows the pair and ports that the packet leaves with: to the
 * backend, or as its reply, which begins nothing. An error has the ports, turned
 * round, and the protocol of what it quotes.
 */
static __noinline int is_allocated(const struct packet *packet, int reply)
{
	const struct address *client = reply ? &packet->new_destination : &packet->new_source;
	const struct address *backend = reply ? &packet->new_source : &packet->new_destination;
	struct allocation_key key = {
		.client_network = client->network,
		.backend_network = backend->network,
		.backend_machine = backend->machine,
		.port = reply ? packet->new_source_port : packet->new_destination_port,
		.protocol = is_error(packet) ? packet->quoted : packet->protocol,
	};

	if (packet->fragment || (key.protocol != IPPROTO_TCP && key.protocol != IPPROTO_UDP) ||
	    (reply && is_bare_syn(packet)))
		return 0;
	return !!bpf_map_lookup_elem(&allocations, &key);
}

/* Writes an address into the frame. */
static __noinline int put_address(context *ctx, __u32 offset, const struct address *address)
{
	/* From 2 on, the fields are where the stack wants them. */
	__u8 raw[20] __attribute__((aligned(4)));

	store_address(raw + 2, address);
	return store_bytes(ctx, offset, raw + 2, 16);
}

/*
 * Writes the quote anew: what the packet answers is the new pair in reverse. Its own
 * checksum absorbs the change where the quote reaches that far, else the error's does.
 */
static __noinline int write_quote(context *ctx, const struct packet *packet, const struct quote *quoted)
{
	__be16 ports[2] = { bpf_htons(packet->new_destination_port), bpf_htons(packet->new_source_port) };
	__u32 difference = 2 * CHECKSUM_ZERO - pair_sum(&quoted->source, &quoted->destination) - quoted->source_port -
			   quoted->destination_port + pair_sum(&packet->new_destination, &packet->new_source) +
			   packet->new_destination_port + packet->new_source_port;
	__u32 field = QUOTE + 40 + (quoted->protocol == IPPROTO_TCP ? 16 : 6);
	__be16 checksum;

	if (put_address(ctx, QUOTE + 8, &packet->new_destination) ||
	    put_address(ctx, QUOTE + 24, &packet->new_source) || store_bytes(ctx, QUOTE + 40, ports, sizeof(ports)))
		return DROP_INTERNAL;
	if (field + 2 > L4 + (__u32)packet->payload || load_bytes(ctx, field, &checksum, 2) || !checksum) {
		/* Until the kernel completes it, the field holds the pseudo header alone. */
		if (packet->checksum == CHECKSUM_PARTIAL)
			return DROP_NONE;
		field = L4 + 2;
		if (load_bytes(ctx, field, &checksum, 2))
			return DROP_INTERNAL;
	}
	checksum = bpf_htons(checksum_adjust(bpf_ntohs(checksum), difference));
	return store_bytes(ctx, field, &checksum, 2) ? DROP_INTERNAL : DROP_NONE;
}

/* From a backend about what a client's flow sent it: 1 if there is such a flow. */
static __noinline int error_to_client(struct packet *packet, const struct quote *quoted)
{
	struct flow_key key = {
		.network = quoted->source.network,
		.machine = quoted->source.machine,
		.port = quoted->source_port,
		.slot = quoted->source.low,
		.protocol = quoted->protocol,
	};
	struct flow copy;

	if (!flow_find(&key, &copy) ||
	    !is_reply_of(&copy, &quoted->destination, quoted->destination_port, quoted->source.host))
		return 0;
	leave_reply(packet, &copy);
	packet->new_destination_port = quoted->source_port;
	return 1;
}

/* From a client about what a VIP sent it: 1 if that was a flow's reply. */
static __noinline int error_to_backend(struct packet *packet, const struct quote *quoted)
{
	__u32 vip = vip_number(&quoted->source);
	__u64 slots = flow_slots(quoted->destination.low, vip, quoted->source_port);
	struct flow_key key = {
		.network = quoted->destination.network,
		.machine = quoted->destination.machine,
		.port = quoted->destination_port,
		.protocol = quoted->protocol,
	};

	for (__u32 probe = 0; probe < SLOT_PROBES; probe++) {
		struct flow copy;

		key.slot = flow_slot(slots, probe);
		if (!flow_find(&key, &copy) || copy.vip != vip || copy.vip_port != quoted->source_port ||
		    copy.client_low != quoted->destination.low)
			continue;
		leave_forward(packet, &copy);
		packet->new_source_port = quoted->destination_port;
		return 1;
	}
	return 0;
}

/*
 * Who may complain of a packet: whoever it was sent to, and, if that is on another
 * host, the router there. The private namespace quotes what no check here has seen.
 */
static __always_inline int may_complain(const struct packet *packet, const struct port *port,
					const struct quote *quoted)
{
	if (port->kind == PORT_HOST || same_machine(&quoted->destination, &packet->source))
		return 1;
	return leads_to_hosts(port) && !packet->source.machine && packet->source.host == quoted->destination.host;
}

__noinline int resolve_error(context *ctx, struct packet *packet, struct port *port)
{
	struct quote quoted = {};
	void *data, *end;
	int to_vip, found = 0;

	if (!packet || !port)
		return DROP_INTERNAL;
	linearize(ctx, QUOTE + QUOTE_READ);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (packet->fragment || packet->l4 != L4 || packet->payload < 8 + QUOTE_READ ||
	    data + QUOTE + QUOTE_READ > end || *(__u8 *)(data + QUOTE) >> 4 != 6)
		return DROP_UNMATCHED_ERROR;
	load_address(&quoted.source, data + QUOTE + 8);
	load_address(&quoted.destination, data + QUOTE + 24);
	quoted.protocol = *(__u8 *)(data + QUOTE + 6);
	quoted.source_port = bpf_ntohs(*(__be16 *)(data + QUOTE + 40));
	quoted.destination_port = bpf_ntohs(*(__be16 *)(data + QUOTE + 42));

	/* And it is told to who sent it, nobody else. */
	if (!may_complain(packet, port, &quoted))
		return DROP_UNMATCHED_ERROR;
	to_vip = packet->destination.host == HOST_VIP;
	if (!same_machine(&quoted.source, &packet->destination) ||
	    (to_vip && quoted.source.low != packet->destination.low))
		return DROP_UNMATCHED_ERROR;

	if (port->kind != PORT_HOST && (quoted.protocol == IPPROTO_TCP || quoted.protocol == IPPROTO_UDP)) {
		if (to_vip && packet->destination.network == packet->source.network)
			found = error_to_backend(packet, &quoted);
		else if (quoted.source.low & SLOT_BIT &&
			 (quoted.source.host == host || quoted.source.host == HOST_OWN_BACKEND))
			found = error_to_client(packet, &quoted);
	}
	if (found)
		return write_quote(ctx, packet, &quoted);
	if (packet->source.network != packet->destination.network && packet->source.machine &&
	    packet->destination.machine) {
		/* About a flow that another host has the entry of: its packets were allowed, or not, by an allocation. */
		packet->quoted = quoted.protocol;
		packet->new_source_port = quoted.destination_port;
		packet->new_destination_port = quoted.source_port;
		if (leads_to_hosts(port) ? is_allocated(packet, 0) :
					   packet->destination.host != host && is_allocated(packet, 1))
			packet->path = PATH_ALLOCATED;
	}
	return to_vip || packet->destination.host == HOST_OWN_BACKEND ? DROP_UNMATCHED_ERROR : DROP_NONE;
}

#endif
