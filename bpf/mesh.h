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
static __noinline int rotate_quote(struct __sk_buff *skb)
{
	struct {
		__u8 pad[2]; /* brings the fields of the addresses to where the stack wants them */
		__u8 pair[32];
	} quoted __attribute__((aligned(8)));
	__u8 type;

	if (bpf_skb_load_bytes(skb, L4, &type, 1) || type >= 128 ||
	    bpf_skb_load_bytes(skb, QUOTE + 8, quoted.pair, sizeof(quoted.pair)))
		return DROP_NONE;
	rotate(quoted.pair);
	rotate(quoted.pair + 16);
	return bpf_skb_store_bytes(skb, QUOTE + 8, quoted.pair, sizeof(quoted.pair), 0) ? DROP_INTERNAL : DROP_NONE;
}

/* Turns a frame of an IPv6 packet, whichever way. */
__noinline int rotate_frame(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + L3;

	if ((void *)(ip + 1) > end)
		return DROP_INTERNAL;
	rotate((__u8 *)&ip->saddr);
	rotate((__u8 *)&ip->daddr);
	return ip->nexthdr == IPPROTO_ICMPV6 ? rotate_quote(skb) : DROP_NONE;
}

/*
 * Makes a packet of the mesh a frame that every stage can read, its addresses as
 * Machines know them. The protocol is told by the version alone. What is too short
 * or no IPv6 is left to parse.
 */
__noinline int mesh_frame(struct __sk_buff *skb)
{
	struct ethhdr *ethernet;
	void *data, *end;

	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return DROP_INTERNAL;
	linearize(skb, LINEAR);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ethernet = data;
	if (data + L3 + 1 > end || *(__u8 *)(data + L3) >> 4 != 6)
		return DROP_NONE;
	ethernet->h_proto = bpf_htons(ETH_P_IPV6);
	if (data + L4 > end)
		return DROP_NONE;
	return rotate_frame(skb);
}

/*
 * 1 if source or destination is under fdaa::/16. All else that the uplink carries is
 * the host's own traffic.
 */
static __always_inline int is_ours(struct __sk_buff *skb)
{
	struct ipv6hdr *ip;
	void *data, *end;

	if (skb->protocol != bpf_htons(ETH_P_IPV6))
		return 0;
	linearize(skb, LINEAR);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + L3;
	if ((void *)(ip + 1) > end)
		return 0;
	return ip->saddr.in6_u.u6_addr16[0] == bpf_htons(PREFIX) || ip->daddr.in6_u.u6_addr16[0] == bpf_htons(PREFIX);
}

#endif
