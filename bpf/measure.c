// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//go:build ignore

/*
 * measure.c is what benchmarks need beside the router. A test run with repeats
 * leaves the frame as the router rewrote it, so the next one would be another
 * packet: sixpn_measure puts the headers back first. The cost of that is measured
 * too, by sixpn_restore, and taken off.
 */
#include "router.c"

#define TEMPLATE 74 /* Ethernet, IPv6, TCP: also the shortest TCP frame */

struct measured_frame {
	__u8 frame[TEMPLATE];
	__u8 pad[2];
	__u32 flows; /* how many clients the runs take turns at; 0: always the frame as it is */
};
ASSERT_SIZE(struct measured_frame, 80);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct measured_frame);
} frame_template SEC(".maps");

/* Runs of the programs below so far; it picks the flow. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");

static __noinline int restore(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct measured_frame *from = bpf_map_lookup_elem(&frame_template, &zero);
	__u64 *run = bpf_map_lookup_elem(&runs, &zero);

	if (!from || !run || bpf_skb_store_bytes(skb, 0, from->frame, TEMPLATE, 0))
		return 0;
	if (from->flows) {
		__u32 number = (*run)++ % from->flows;
		__be16 low = bpf_htons(2 + (number >> 15)), port = bpf_htons(1024 + (number & 0x7fff));

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
	return route(skb, ENTRY_PORT);
}

SEC("tc")
int sixpn_restore(struct __sk_buff *skb)
{
	return restore(skb) ? VERDICT_DROP : -1;
}

/* Live frames, all alike. They are recycled as the router left them, so this one puts the headers back as well. */
#define LIVE_FRAME 64

struct short_frame {
	__u8 frame[LIVE_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct short_frame);
} live_frame SEC(".maps");

SEC("xdp")
int sixpn_live(struct xdp_md *xdp)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	__u32 zero = 0;
	struct short_frame *from = bpf_map_lookup_elem(&live_frame, &zero);

	if (!from || data + LIVE_FRAME > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, from->frame, LIVE_FRAME);
	return XDP_PASS;
}

/* Where live frames end: counts and drops them, and nothing that the kernel says by itself beside them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

SEC("tc")
int sixpn_sink(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + L3;
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&sunk, &zero);

	if (count && (void *)(ip + 1) <= end && ip->nexthdr == IPPROTO_UDP)
		++*count;
	return VERDICT_DROP;
}
