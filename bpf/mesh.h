/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * mesh.h is what the ways to other hosts have of their own: addresses travel there with
 * network and host swapped, so that a host is one prefix. The mesh device has no link
 * layer; the uplink has one, and frames that are none of the router's business.
 */
#ifndef SIXPN_MESH_H
#define SIXPN_MESH_H

#include "address.h"
#include "parse.h"

#define QUOTE (L4 + 8) /* of an ICMPv6 error */

/*
 * Swaps network and host of a raw address, if it is one of ours. 16-bit words move
 * and none changes: no checksum notices, whether complete or still to be completed.
 */
static __always_inline void rotate(__u8 *raw)
{
	__be32 network = *(__be32 *)(raw + 2);

	if (*(__be16 *)raw != bpf_htons(PREFIX))
		return;
	*(__be32 *)(raw + 2) = *(__be32 *)(raw + 6);
	*(__be32 *)(raw + 6) = network;
}

/*
 * The pair that an ICMPv6 error quotes turns with it: so what a host quotes arrives
 * as it was, and what a router on the way quotes, which saw it turned, is put right.
 */
static __noinline int rotate_quote(context *ctx)
{
	struct {
		__u8 pad[2]; /* brings the fields of the addresses to where the stack wants them */
		__u8 pair[32];
	} quoted __attribute__((aligned(8)));
	__u8 type;

	if (load_bytes(ctx, L4, &type, 1) || type >= 128 ||
	    load_bytes(ctx, QUOTE + 8, quoted.pair, sizeof(quoted.pair)))
		return DROP_NONE;
	rotate(quoted.pair);
	rotate(quoted.pair + 16);
	return store_bytes(ctx, QUOTE + 8, quoted.pair, sizeof(quoted.pair)) ? DROP_INTERNAL : DROP_NONE;
}

/* Turns a frame of an IPv6 packet, whichever way. */
__noinline int rotate_frame(context *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + L3;

	if ((void *)(ip + 1) > end)
		return DROP_INTERNAL;
	rotate((__u8 *)&ip->saddr);
	rotate((__u8 *)&ip->daddr);
	return ip->nexthdr == IPPROTO_ICMPV6 ? rotate_quote(ctx) : DROP_NONE;
}

/*
 * 1 if source or destination is under fdaa::/16, or cannot be read. All else that the uplink carries is
 * the host's own traffic.
 */
static __always_inline int is_ours(context *ctx)
{
	struct ipv6hdr *ip;
	void *data, *end;

	if (!is_ipv6(ctx))
		return 0;
	linearize(ctx, LINEAR);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip = data + L3;
	/* A frame that is long enough and cannot be read must not pass: the stages drop it. */
	if ((void *)(ip + 1) > end)
		return frame_length(ctx) >= L4;
	return ip->saddr.in6_u.u6_addr16[0] == bpf_htons(PREFIX) || ip->daddr.in6_u.u6_addr16[0] == bpf_htons(PREFIX);
}

#endif
