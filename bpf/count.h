/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* count.h turns what happened into counters, and some drops into events. */
#ifndef SIXPN_COUNT_H
#define SIXPN_COUNT_H

#include <linux/udp.h>

#include "ctx.h"
#include "maps.h"

#define SECOND_NS 1000000000ULL

/* ICMPv6 errors a second and CPU, of a Machine or of a network on other hosts (RFC 4443, 2.4 f). */
#define ERRORS_PER_SECOND 1000

/* Drop events a second and CPU; set at load. */
volatile const __u32 events_per_second = 100;

/* How many packets of `size` bytes of payload a frame is cut into. */
static __always_inline __u32 segments(const struct packet *packet, __u32 size)
{
	__u32 headers = packet->l4 + (packet->protocol == IPPROTO_TCP ? packet->tcp_length : sizeof(struct udphdr));

	return packet->length > headers ? (packet->length - headers + size - 1) / size : 1;
}

static __always_inline void count_forwarded(context *ctx, const struct packet *packet, __u32 in, __u32 out)
{
	struct counters *rx = bpf_map_lookup_elem(&port_counters, &in);
	struct counters *tx = bpf_map_lookup_elem(&port_counters, &out);
	__u32 packets = 1;

	/* Nothing shorter than the smallest MTU is more than one packet. */
	if (packet->length > 1280 && segment_count(ctx) > 1)
		packets = segment_count(ctx);
	else if (packet->length > 1280 && segment_size(ctx)) /* a tap's segments are not counted yet */
		packets = segments(packet, segment_size(ctx));
	if (rx) {
		rx->rx_packets += packets;
		rx->rx_bytes += packet->length;
	}
	if (tx) {
		tx->tx_packets += packets;
		tx->tx_bytes += packet->length;
	}
}

/* Takes a token of a bucket that holds one second's worth. */
static __always_inline int take_token(struct bucket *bucket, __u64 now, __u32 rate)
{
	__u64 elapsed = now - bucket->refilled;

	if (elapsed > SECOND_NS) {
		bucket->tokens = rate;
		bucket->refilled = now;
	} else if (elapsed * rate >= SECOND_NS) {
		__u64 earned = elapsed * rate / SECOND_NS;

		bucket->tokens = bucket->tokens + earned < rate ? bucket->tokens + earned : rate;
		bucket->refilled += earned * SECOND_NS / rate;
	}
	if (!bucket->tokens)
		return 0;
	bucket->tokens--;
	return 1;
}

/* Whoever shares a port with others has a budget of its own, which theirs do not use up. */
static __always_inline int may_have_error(const struct port *port, __u32 network)
{
	__u32 index = port->counters;
	struct bucket *budget;

	if (port->kind == PORT_MACHINE) {
		budget = bpf_map_lookup_elem(&error_budget, &index);
	} else {
		index = network % NETWORK_BUDGETS;
		budget = bpf_map_lookup_elem(&network_error_budget, &index);
	}
	return budget && take_token(budget, bpf_ktime_get_coarse_ns(), ERRORS_PER_SECOND);
}

/* Every guest's normal noise; counted, and never sampled. */
static __always_inline int is_noise(__u32 reason)
{
	return reason == DROP_NEIGHBOUR_NOISE || reason == DROP_MULTICAST_NOISE;
}

__noinline int sample_drop(context *ctx, __u32 reason)
{
	__u32 zero = 0, length = frame_length(ctx), captured = length < EVENT_BYTES ? length : EVENT_BYTES;
	struct bucket *budget = bpf_map_lookup_elem(&event_budget, &zero);
	struct drop_event *event;
	__u64 now = bpf_ktime_get_coarse_ns(); /* most calls end at the empty bucket */

	if (!budget || !events_per_second)
		return 0;
	if (!take_token(budget, now, events_per_second)) {
		budget->lost++;
		return 0;
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		budget->lost++;
		return 0;
	}
	event->time = bpf_ktime_get_ns();
	event->ifindex = frame_ifindex(ctx);
	event->reason = reason;
	event->length = length;
	event->captured = captured;
	__builtin_memset(event->data, 0, sizeof(event->data));
	barrier_var(captured); /* or the compiler knows what the verifier does not */
	if (captured < 1 || captured > EVENT_BYTES || load_bytes(ctx, 0, event->data, captured))
		event->captured = 0;
	bpf_ringbuf_submit(event, 0);
	return 1;
}

/* `port` is NULL for a device that is no port. */
static __always_inline void count_drop(context *ctx, __u32 reason, struct port *port)
{
	struct port_drop_key key = { .ifindex = frame_ifindex(ctx), .reason = reason };
	__u64 *total = bpf_map_lookup_elem(&drops, &reason), *count, zero = 0;

	if (total)
		++*total;
	count = bpf_map_lookup_elem(&port_drops, &key);
	if (!count) {
		/* Another CPU may do the same now; either way it is there then. */
		bpf_map_update_elem(&port_drops, &key, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&port_drops, &key);
	}
	if (count)
		++*count;
	if (port) {
		__u32 index = port->counters;
		struct counters *counters = bpf_map_lookup_elem(&port_counters, &index);

		if (counters)
			counters->dropped++;
	}
	if (!is_noise(reason))
		sample_drop(ctx, reason);
}

#endif
