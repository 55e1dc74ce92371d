/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* choose.h finds the service of a new flow and one of its backends, and counts the flow there. */
#ifndef SIXPN_CHOOSE_H
#define SIXPN_CHOOSE_H

#include "flow.h"

/*
 * Positions of a Maglev region that are looked at before it is said that all its
 * backends are at a limit. With 1 of 10 below it, 64 miss that one once in a thousand.
 */
#define CHOICES 64

static __noinline struct service *find_service(const struct packet *packet)
{
	struct service_key key = {
		.network = packet->destination.network,
		.vip = vip_number(&packet->destination),
		.port = packet->destination_port,
		.protocol = packet->protocol,
	};
	struct service_range_key range = {
		.prefix_length = 72 + 16,
		.network = bpf_htonl(key.network),
		.vip = bpf_htonl(key.vip),
		.protocol = key.protocol,
		.port = { key.port >> 8, key.port & 0xff },
	};
	struct service *service = bpf_map_lookup_elem(&services, &key);

	return service ?: bpf_map_lookup_elem(&service_ranges, &range);
}

/* The search for a backend of a service; index 0: none found yet. */
struct choice {
	__u64 seed;
	const struct service *service;
	__u32 offset; /* of the region that is looked through */
	__u32 prime;
	__u32 index;
	__u8 hard; /* up to the hard limit */
	int reason;
};

static __always_inline struct backend *backend_at(const struct choice *choice, __u32 hash, __u32 *index)
{
	const struct service *service = choice->service;
	__u32 position = choice->offset + (__u32)((__u64)hash * choice->prime >> 32);
	__u32 *entry = bpf_map_lookup_elem(&maglev, &position);
	struct backend *backend;

	if (!entry || !*entry)
		return NULL;
	*index = *entry;
	backend = bpf_map_lookup_elem(&backends, index);
	if (!backend || !backend->machine || backend->flags & BACKEND_GONE || backend->service != service->id)
		return NULL;
	return backend;
}

static __always_inline void begin_pass(struct choice *choice, __u8 hard)
{
	choice->hard = hard;
	choice->offset = choice->service->offset;
	choice->prime = choice->service->prime;
}

/* Goes on to the next farther region, behind the last to the nearest again, up to the hard limit. 0: there is no more. */
static __always_inline int next_region(struct choice *choice)
{
	const struct service *service = choice->service;
	__u32 position = choice->offset + choice->prime, *prime;

	if (position < service->offset + service->length) {
		prime = bpf_map_lookup_elem(&maglev, &position);
		if (!prime)
			return 0;
		choice->offset = position + 1;
		choice->prime = *prime;
		return 1;
	}
	if (choice->hard)
		return 0;
	begin_pass(choice, 1);
	return 1;
}

/*
 * May a flow begin beside `live` others of this host, as far as all hosts have agreed?
 * The share is read after the flow was counted: whoever lowers a share and then reads
 * the count sees every flow that was let in by the share before.
 */
static __always_inline int shared_room(const struct choice *choice, __u32 index, __u32 live)
{
	const struct service *service = choice->service;
	struct share *share = bpf_map_lookup_elem(&shares, &index);

	if (!share)
		return 0;
	if (!choice->hard && (__s32)(live + *(volatile __u32 *)&share->elsewhere) >= (__s32)service->soft_limit)
		return 0;
	if (!service->hard_limit || (__s32)live < *(volatile __s32 *)&share->limit)
		return 1;
	if (!__sync_lock_test_and_set(&share->wanted, 1))
		bpf_ringbuf_output(&wants, &index, sizeof(index), 0);
	return 0;
}

/* One step of bpf_loop: counts the flow up at a backend and ends the search, unless that is at its limit. */
static long choose(__u32 step, struct choice *choice)
{
	const struct service *service = choice->service;
	__u32 limit = choice->hard ? service->hard_limit : service->soft_limit, index, live;
	struct backend *backend;
	struct load *load;

	step %= CHOICES;
	backend = backend_at(choice, (__u32)(mix(choice->seed + step) >> 32), &index);
	load = backend ? bpf_map_lookup_elem(&backend_load, &index) : NULL;
	if (load) {
		choice->reason = DROP_BACKEND_LIMIT;
		live = __sync_fetch_and_add(&load->live, 1);
		if ((!limit || (__s32)live < (__s32)limit) &&
		    (!(service->flags & SERVICE_SHARED) || shared_room(choice, index, live))) {
			__sync_fetch_and_add(&load->total, 1);
			choice->index = index;
			return 1;
		}
		__sync_fetch_and_sub(&load->live, 1);
	}
	return step == CHOICES - 1 && !next_region(choice);
}

/*
 * Chooses a backend and counts the flow up there: the first under its soft limit, of
 * the nearest region that has one, else the first under its hard limit likewise. Fills
 * the backend part of `flow`.
 */
static __noinline int backend_take(const struct packet *packet, const struct service *service, struct flow *flow)
{
	/* An element of `services` that is replaced becomes another service's at once: this copy may be of that one. */
	struct service own = *service;
	struct choice choice = {
		.seed = mix(
			((__u64)packet->source.machine << 32 | (__u32)packet->source.low << 16 | packet->source_port) ^
			mix((__u64)vip_number(&packet->destination) << 32 | packet->destination_port << 8 |
			    packet->protocol)),
		.service = &own,
		.reason = DROP_NO_BACKEND,
	};
	const struct service *again;
	struct backend *backend;

	if (!own.prime)
		return DROP_NO_BACKEND;
	begin_pass(&choice, !own.soft_limit || (own.hard_limit && own.hard_limit <= own.soft_limit));
	bpf_loop(2 * CHOICES * SERVICE_REGIONS, choose, &choice, 0);
	if (!choice.index)
		return choice.reason;
	backend = bpf_map_lookup_elem(&backends, &choice.index);
	if (!backend)
		return DROP_INTERNAL;
	flow->backend = choice.index;
	flow->backend_generation = backend->generation;
	flow->backend_network = backend->network;
	flow->backend_host = backend->host;
	flow->backend_machine = backend->machine;
	flow->backend_port = backend->port;
	flow->service = own.id;
	/* The backend is one of `own.id`; that this is the packet's service is certain only now. */
	again = find_service(packet);
	if (again) {
		flow->flags = *(volatile __u8 *)&again->flags & SERVICE_CROSS_NETWORK ? FLOW_CROSS_NETWORK : 0;
		barrier_var(again);
	}
	if (!again || *(volatile __u32 *)&again->id != own.id) {
		backend_give(choice.index, flow->backend_generation);
		return DROP_NO_BACKEND;
	}
	if (backend->machine == packet->source.machine && backend->network == packet->source.network)
		flow->flags = FLOW_OWN_BACKEND;
	return DROP_NONE;
}

#endif
