// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//go:build ignore

/*
 * measure.c is the router for BPF_PROG_TEST_RUN with many repeats. A run leaves
 * the frame as the router rewrote it, so the next one would be another packet:
 * these programs put the headers back first. The cost of that is measured too,
 * by sixpn_restore, and taken off.
 */
#include "router.c"

#define TEMPLATE 74 /* Ethernet, IPv6, TCP: also the shortest TCP frame */

struct template {
	__u8 frame[TEMPLATE];
	__u8 pad[2];
	__u32 mask; /* of the run's number, from which ports and addresses are made; 0: always the same packet */
};
ASSERT_SIZE(struct template, 80);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct template);
} template SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");

static __always_inline int restore(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct template *from = bpf_map_lookup_elem(&template, &zero);
	__u64 *run = bpf_map_lookup_elem(&runs, &zero);

	if (!from || !run || bpf_skb_store_bytes(skb, 0, from->frame, TEMPLATE, 0))
		return 0;
	if (from->mask) {
		__u32 number = (*run)++ & from->mask;
		__be16 low = bpf_htons(0x4000 | (number & 0x3fff)), port = bpf_htons(1024 + (number >> 14));

		bpf_skb_store_bytes(skb, L3 + 8 + 14, &low, 2, 0);
		bpf_skb_store_bytes(skb, L4, &port, 2, 0);
	}
	return 1;
}

SEC("tc")
int sixpn_measure(struct __sk_buff *skb)
{
	if (!restore(skb))
		return -1;
	return route(skb);
}

SEC("tc")
int sixpn_restore(struct __sk_buff *skb)
{
	return restore(skb) ? VERDICT_DROP : -1;
}
