/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* tun.h is what a device without link layer needs before the stages can read its packets. */
#ifndef SIXPN_TUN_H
#define SIXPN_TUN_H

#include "mesh.h"

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

#endif
