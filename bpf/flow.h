/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * flow.h is the life of a flow entry: find, count, insert, renew, give to another
 * backend, delete. Whoever moves the state word to FLOW_DEAD counts down and
 * alone deletes; every count goes up before the insert and is undone if that fails.
 */
#ifndef SIXPN_FLOW_H
#define SIXPN_FLOW_H

#include "address.h"
#include "maps.h"
#include "parse.h"

#define SECOND 1000000000ULL
#define FLOW_LOOKS 4 /* a state changes a few times in a flow's life, hardly twice during one look */

static __always_inline __u64 mix(__u64 value)
{
	value ^= value >> 32;
	value *= 0x9e3779b97f4a7c15ULL;
	value ^= value >> 29;
	value *= 0xbf58476d1ce4e5b9ULL;
	return value ^ value >> 32;
}

/* Four slots of 15 bits, of which flow_slot takes one. Part of the ABI. */
static __always_inline __u64 flow_slots(__u16 client_low, __u32 vip, __u16 vip_port)
{
	return mix((__u64)vip << 32 | (__u32)client_low << 16 | vip_port);
}

static __always_inline __u16 flow_slot(__u64 slots, __u32 probe)
{
	return SLOT_BIT | ((slots >> (probe * 15)) & 0x7fff);
}

static __always_inline int same_key(const struct flow_key *a, const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline __u32 flow_status(const struct flow *flow)
{
	return flow->state & FLOW_STATE_MASK;
}

/*
 * Copies the entry of `key` to `copy` and returns it, NULL if there is none to
 * use: an element freed during the read may have become another flow's, and one
 * that is being rewritten is nobody's. The state is read before and after, so
 * that a copy made during a rewrite shows. Mostly it was a packet of the other
 * direction that changed it, and the flow is whole at the next look.
 */
static __always_inline struct flow *flow_find(const struct flow_key *key, struct flow *copy)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	if (!flow)
		return NULL;
#pragma clang loop unroll(disable)
	for (int look = 0; look < FLOW_LOOKS; look++) {
		__u32 state = *(volatile __u32 *)&flow->state;

		barrier_var(flow);
		*copy = *flow;
		barrier_var(flow);
		if (*(volatile __u32 *)&flow->state == state && copy->state == state)
			return flow_status(copy) > FLOW_BUSY && same_key(&copy->key, key) ? flow : NULL;
	}
	return NULL;
}

/* 1 if the entry is that of this packet on its way to a VIP; the key is the caller's matter. */
static __always_inline int is_flow_of(const struct flow *flow, const struct packet *packet)
{
	return flow->client_low == packet->source.low && flow->vip_port == packet->destination_port &&
	       flow->vip == vip_number(&packet->destination);
}

/* The entry of a packet on its way to a VIP, by this slot. */
static __always_inline struct flow *flow_forward(const struct packet *packet, __u16 slot, struct flow *copy)
{
	struct flow_key key = {
		.network = packet->source.network,
		.machine = packet->source.machine,
		.port = packet->source_port,
		.slot = slot,
		.protocol = packet->protocol,
	};
	struct flow *flow = flow_find(&key, copy);

	return flow && is_flow_of(copy, packet) ? flow : NULL;
}

static __always_inline int is_bare_syn(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

static __always_inline int move_state(struct flow *flow, __u32 from, __u32 to)
{
	return __sync_val_compare_and_swap(&flow->state, from, to) == from;
}

/* The state of an entry after a TCP packet. */
static __always_inline __u32 next_state(__u32 old, const struct packet *packet, int reply)
{
	__u32 next = old, status = old & FLOW_STATE_MASK;

	/* The client's port again: whatever ended before was another connection. */
	if (!reply && is_bare_syn(packet))
		next &= ~(FLOW_FIN_FORWARD | FLOW_FIN_REPLY);
	if (packet->tcp_flags & TCP_FIN)
		next |= reply ? FLOW_FIN_REPLY : FLOW_FIN_FORWARD;
	if (reply)
		next |= FLOW_ANSWERED;
	else if (status == FLOW_SYN && old & FLOW_ANSWERED && !(packet->tcp_flags & TCP_SYN))
		status = FLOW_ESTABLISHED;
	if (status != FLOW_CLOSING &&
	    (packet->tcp_flags & TCP_RST || (next & FLOW_FIN_FORWARD && next & FLOW_FIN_REPLY))) {
		status = FLOW_CLOSING;
		next |= FLOW_UNCOUNTED;
	}
	return (next & ~FLOW_STATE_MASK) | status;
}

/* Counts a flow down at its backend, if the element is still that backend's. */
static __noinline void backend_give(__u32 index, __u32 generation)
{
	struct load *load = bpf_map_lookup_elem(&backend_load, &index);

	if (load && load->generation == generation)
		__sync_fetch_and_sub(&load->live, 1);
}

/*
 * Follows a packet of an entry that stays with its backend. Two directions may
 * change it at once, and a FIN is not told twice: whoever loses looks again.
 */
static __always_inline void flow_renew(struct flow *flow, const struct flow *copy, const struct packet *packet,
				       int reply)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 old = copy->state;

	if (packet->protocol == IPPROTO_TCP) {
#pragma clang loop unroll(disable)
		for (int look = 0; look < FLOW_LOOKS; look++) {
			__u32 next = next_state(old, packet, reply), seen, status;

			if (next == old)
				break;
			seen = __sync_val_compare_and_swap(&flow->state, old, next);
			status = seen & FLOW_STATE_MASK;
			/* What lingers for late segments takes no place of a backend with a limit. */
			if (seen == old && (next & ~old) & FLOW_UNCOUNTED)
				backend_give(copy->backend, copy->backend_generation);
			/* Nothing is known here of one that has begun anew or lost its backend. */
			if (seen == old || (seen ^ old) & FLOW_TAG_MASK || status < FLOW_SYN || status > FLOW_CLOSING)
				break;
			old = seen;
		}
	}
	/*
	 * Else a backend, perhaps another org's, could hold an entry of this client open
	 * for ever; and a client, after a reset that its backend did not believe, a
	 * connection that counts nowhere.
	 */
	if (flow_status(copy) == FLOW_CLOSING || (reply && copy->flags & FLOW_CROSS_NETWORK))
		return;
	/* One write a second: the line stays shared between CPUs. */
	if (now - copy->last_seen > SECOND)
		flow->last_seen = now;
}

static __noinline int quota_take(__u32 network, __u32 machine)
{
	struct machine_key key = { .network = network, .machine = machine };
	struct quota *quota = bpf_map_lookup_elem(&quotas, &key);

	if (!quota)
		return 0;
	/*
	 * Signed: flows that are opened while an upgrade carries the count into a
	 * new table are not in it, and may take it below zero when they end.
	 */
	if ((__s32)__sync_fetch_and_add(&quota->used, 1) < (__s32)quota->limit)
		return 1;
	__sync_fetch_and_sub(&quota->used, 1);
	__sync_fetch_and_add(&quota->refused, 1);
	return 0;
}

static __noinline void quota_give(__u32 network, __u32 machine)
{
	struct machine_key key = { .network = network, .machine = machine };
	struct quota *quota = bpf_map_lookup_elem(&quotas, &key);

	if (quota)
		__sync_fetch_and_sub(&quota->used, 1);
}

/* Takes an entry out of the table; `state` is what the caller saw. 1: this call did it. */
static __always_inline int flow_delete(struct flow *flow, struct flow_key *key, __u32 state)
{
	__u32 backend = flow->backend, generation = flow->backend_generation;

	if (!move_state(flow, state, FLOW_DEAD))
		return 0;
	if (bpf_map_delete_elem(&flows, key)) {
		/* The table was locked: the entry lives on, counted, until the next pass. */
		move_state(flow, FLOW_DEAD, state);
		return 0;
	}
	if (!(state & FLOW_UNCOUNTED))
		backend_give(backend, generation);
	quota_give(key->network, key->machine);
	quota_give(key->network, 0);
	return 1;
}

#endif
