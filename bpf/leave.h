/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * leave.h takes a resolved packet out: the device, its limits, the final check on
 * the pair that the packet will carry, the rewrite, the redirect.
 */
#ifndef SIXPN_LEAVE_H
#define SIXPN_LEAVE_H

#include "checksum.h"
#include "count.h"
#include "flycast.h"
#include "mesh.h"
#include "wall.h"

/* The device that new_destination is on. */
static __always_inline struct machine *find_device(const struct packet *packet)
{
	const struct address *destination = &packet->new_destination;
	__u32 zero = 0;

	if (packet->path == PATH_HOST) {
		struct machine *device = bpf_map_lookup_elem(&host_port, &zero);

		return device && device->ifindex ? device : NULL;
	}
	return find_machine(destination->network, destination->machine);
}

static __always_inline int is_device_of(const struct machine *device, const struct address *address)
{
	const volatile struct machine *now = device;

	return now->machine == address->machine && now->network == address->network;
}

/* The largest IPv6 packet this frame puts on the wire: its own length, or a segment's. */
static __always_inline __u32 wire_length(context *ctx, const struct packet *packet)
{
	__u32 segment = segment_size(ctx);

	if (!segment)
		return packet->length - L3;
	return packet->l4 - L3 + segment + (packet->protocol == IPPROTO_TCP ? packet->tcp_length : 8);
}

/* Writes the new pair and ports; the checksum follows them. */
static __always_inline int rewrite(context *ctx, const struct packet *packet)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + L3;
	__be16 *ports = data + L4, *checksum;
	__u32 difference = packet->difference;
	__u16 old;

	switch (packet->protocol) {
	case IPPROTO_TCP:
		checksum = data + L4 + 16;
		break;
	case IPPROTO_UDP:
		checksum = data + L4 + 6;
		break;
	default:
		checksum = data + L4 + 2;
	}
	if (data + L4 + 8 > end || (void *)(checksum + 1) > end)
		return DROP_INTERNAL;

	store_address(&ip->saddr, &packet->new_source);
	store_address(&ip->daddr, &packet->new_destination);
	old = bpf_ntohs(*checksum);
	if (packet->checksum == CHECKSUM_PARTIAL) {
		/* The field holds the sum of the pseudo header; the kernel adds the rest. */
		*checksum = bpf_htons(fold((__u64)old + difference));
	} else {
		if (packet->protocol != IPPROTO_ICMPV6)
			difference += CHECKSUM_ZERO + packet->new_source_port + packet->new_destination_port -
				      packet->source_port - packet->destination_port;
		/* UDP without a checksum is not IPv6 (RFC 8200, 8.1): it stays wrong. */
		if (packet->protocol != IPPROTO_UDP || old) {
			__u16 sum = checksum_adjust(old, difference);

			*checksum = bpf_htons(sum ?: packet->protocol == IPPROTO_UDP ? 0xffff : 0);
		}
	}
	if (packet->protocol != IPPROTO_ICMPV6) {
		ports[0] = bpf_htons(packet->new_source_port);
		ports[1] = bpf_htons(packet->new_destination_port);
	}
	return DROP_NONE;
}

/* What no device may ask of the router, and what this one cannot take. */
static __always_inline int leave_limits(context *ctx, struct packet *packet, __u16 mtu)
{
	if (packet->length - L3 > mtu && wire_length(ctx, packet) > mtu) {
		packet->mtu = mtu;
		return DROP_TOO_BIG;
	}
	if (packet->hop_limit <= 1 && packet->path != PATH_HOST)
		return DROP_HOP_LIMIT;
	/* What a tunnel left to the kernel is not where a translation would look for it. */
	if (packet->checksum == CHECKSUM_INNER && (packet->path == PATH_FORWARD || packet->path == PATH_REPLY))
		return DROP_CHECKSUM_OFFLOAD;
	return DROP_NONE;
}

/* Takes a hop of a packet whose IPv6 header is readable. */
static __always_inline void take_hop(context *ctx, struct ipv6hdr *ip, const struct packet *packet)
{
	ip->hop_limit = packet->hop_limit - 1;
	/* The pair, its ports and the checksum cancel out; the hop limit does not. */
	if (packet->checksum == CHECKSUM_COMPLETE)
		sum_changed(ctx, bpf_htons(0xfffe));
}

/*
 * To another host. The kernel takes the Ethernet header off for a device that has
 * none, and makes the one of the next hop for the uplink. Not inlined: between Machines
 * of one host nothing of this is met.
 */
__noinline int leave_host(context *ctx, struct packet *packet, struct port *in)
{
	__u32 zero = 0, ifindex;
	struct host_device *out = bpf_map_lookup_elem(&mesh_device, &zero);
	void *data, *end;
	int reason;

	if (!packet || !in)
		return DROP_INTERNAL;
	ifindex = out ? *(volatile __u32 *)&out->ifindex : 0;
	if (!ifindex)
		return DROP_OTHER_HOST;
	reason = leave_limits(ctx, packet, out->mtu);
	if (reason)
		return reason;
	if (!may_leave_host(packet, in))
		return DROP_WALL;
	if (packet->path == PATH_FORWARD) {
		reason = rewrite(ctx, packet);
		if (reason)
			return reason;
	}
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + L4 > end)
		return DROP_INTERNAL;
	take_hop(ctx, data + L3, packet);
	reason = rotate_frame(ctx);
	if (reason)
		return reason;
	count_forwarded(ctx, packet, in->counters, out->counters);
	if (out->redirect == REDIRECT_NEIGHBOUR)
		return bpf_redirect_neigh(ifindex, NULL, 0, 0) == VERDICT_REDIRECT ? DROP_NONE : DROP_INTERNAL;
	return bpf_redirect(ifindex, 0) == VERDICT_REDIRECT ? DROP_NONE : DROP_INTERNAL;
}

/*
 * 1 if XDP cannot do this packet right: the private namespace takes no frames of XDP, nor
 * does a device that was not made ready for them. And generic XDP does not know which
 * checksums the kernel still has to complete, so it translates none.
 */
static __always_inline int hands_over(enum entry entry, const struct packet *packet, const struct machine *out)
{
	if (entry != ENTRY_DRIVER && entry != ENTRY_GENERIC)
		return 0;
	return packet->path == PATH_HOST || out->redirect != REDIRECT_XDP ||
	       (entry == ENTRY_GENERIC && packet->path == PATH_REPLY);
}

/* The frame goes to the device, or to its peer, past the device itself. */
static __always_inline int redirect(enum entry entry, const struct packet *packet, const struct machine *out,
				    __u32 ifindex)
{
	if (entry == ENTRY_DRIVER || entry == ENTRY_GENERIC)
		return bpf_redirect(ifindex, 0);
	if (packet->path == PATH_HOST || (out->redirect != REDIRECT_EGRESS && ifindex != packet->ifindex))
		return bpf_redirect_peer(ifindex, 0);
	return bpf_redirect(ifindex, 0);
}

/* Sends the packet on. DROP_NONE: *verdict is the program's. */
static __always_inline int leave(context *ctx, struct packet *packet, struct port *in, enum entry entry, int *verdict)
{
	int mesh = entry != ENTRY_PORT;
	void *data, *end;
	struct ethhdr *ethernet;
	struct machine *out;
	__u32 ifindex;
	int reason;

	if (packet->path != PATH_HOST && packet->new_destination.host != host) {
		if (mesh)
			return DROP_OTHER_HOST;
		*verdict = VERDICT_REDIRECT;
		return leave_host(ctx, packet, in);
	}
	out = find_device(packet);
	if (!out)
		return packet->path == PATH_HOST ? DROP_HOST_SERVICE : DROP_NO_MACHINE;
	if (hands_over(entry, packet, out))
		return HAND_OVER;
	reason = leave_limits(ctx, packet, out->mtu);
	if (reason)
		return reason;
	ifindex = *(volatile __u32 *)&out->ifindex;
	if (!may_leave(packet, in, ifindex, mesh))
		return DROP_WALL;
	/* Its place may be another Machine's by now; if it is not, the ifindex read before is right. */
	if (packet->path != PATH_HOST && !is_device_of(out, &packet->new_destination))
		return DROP_NO_MACHINE;

	if (packet->path == PATH_FORWARD || packet->path == PATH_REPLY || packet->path == PATH_FABRIC) {
		reason = rewrite(ctx, packet);
		if (reason)
			return reason;
	}
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + L4 > end)
		return DROP_INTERNAL;
	ethernet = data;
	if (packet->path != PATH_HOST)
		take_hop(ctx, data + L3, packet);
	__builtin_memcpy(ethernet->h_dest, out->mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, out->router_mac, ETH_ALEN);

	count_forwarded(ctx, packet, in->counters, out->counters);
	*verdict = redirect(entry, packet, out, ifindex);
	return DROP_NONE;
}

#endif
