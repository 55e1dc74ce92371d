/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* flycast.h resolves a VIP: service, backend, flow entry; and a reply back to its VIP. */
#ifndef SIXPN_FLYCAST_H
#define SIXPN_FLYCAST_H

#include "checksum.h"
#include "flow.h"

/*
 * Positions of the Maglev region that are looked at before it is said that all
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

static __always_inline struct backend *backend_at(const struct service *service, __u32 hash, __u32 *index)
{
	__u32 position = service->offset + (__u32)((__u64)hash * service->prime >> 32);
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

/* The search for a backend of a service; index 0: none found yet. */
struct choice {
	__u64 seed;
	const struct service *service;
	__u32 index;
	int reason;
};

/* One step of bpf_loop: counts the flow up at a backend and ends the search, unless that is at its limit. */
static long choose(__u32 step, struct choice *choice)
{
	const struct service *service = choice->service;
	__u32 limit = service->hard_limit, soft = service->soft_limit, index;
	struct backend *backend = backend_at(service, (__u32)(mix(choice->seed + step % CHOICES) >> 32), &index);
	struct load *load = backend ? bpf_map_lookup_elem(&backend_load, &index) : NULL;

	if (!load)
		return 0;
	if (step < CHOICES && soft && (!limit || soft < limit))
		limit = soft;
	choice->reason = DROP_BACKEND_LIMIT;
	if ((__s32)__sync_fetch_and_add(&load->live, 1) >= (__s32)limit && limit) {
		__sync_fetch_and_sub(&load->live, 1);
		return 0;
	}
	__sync_fetch_and_add(&load->total, 1);
	choice->index = index;
	return 1;
}

/*
 * Chooses a backend and counts the flow up there: the first under its soft limit,
 * else the first under its hard limit. Fills the backend part of `flow`.
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
	bpf_loop(2 * CHOICES, choose, &choice, 0);
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

static __always_inline __u32 fresh_state(const struct packet *packet)
{
	return (bpf_get_prandom_u32() & FLOW_TAG_MASK) | (packet->protocol == IPPROTO_TCP ? FLOW_SYN : FLOW_UDP);
}

/* May this packet begin a flow, or begin it anew? */
static __always_inline int begins(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP || is_bare_syn(packet);
}

/* Gives an ended flow's entry to a new flow of the same client, VIP and ports. */
static __always_inline int flow_restart(struct flow *flow, struct flow *copy, const struct packet *packet,
					const struct service *service)
{
	__u32 backend = copy->backend, generation = copy->backend_generation, before = copy->state;
	__u32 busy = (copy->state & FLOW_TAG_MASK) | FLOW_BUSY, state = fresh_state(packet);
	int reason;

	if (!move_state(flow, copy->state, busy))
		return DROP_SLOTS_TAKEN;
	reason = backend_take(packet, service, copy);
	if (reason) {
		/* Nobody else moves a busy entry; the old end of it stays. */
		move_state(flow, busy, copy->state);
		return reason;
	}
	if (!(before & FLOW_UNCOUNTED))
		backend_give(backend, generation);
	flow->backend = copy->backend;
	flow->backend_generation = copy->backend_generation;
	flow->backend_network = copy->backend_network;
	flow->backend_host = copy->backend_host;
	flow->backend_machine = copy->backend_machine;
	flow->backend_port = copy->backend_port;
	flow->service = copy->service;
	flow->flags = copy->flags;
	flow->last_seen = bpf_ktime_get_coarse_ns();
	copy->state = state;
	return move_state(flow, busy, state) ? DROP_NONE : DROP_INTERNAL;
}

/* Makes an entry: counts first, then insert if absent, all undone on failure. */
static __always_inline int flow_insert(const struct packet *packet, const struct service *service, __u64 slots,
				       struct flow *flow)
{
	__u32 network = packet->source.network, machine = packet->source.machine;
	int reason, error = -17;

	__builtin_memset(flow, 0, sizeof(*flow));
	flow->key.network = network;
	flow->key.machine = machine;
	flow->key.port = packet->source_port;
	flow->key.protocol = packet->protocol;
	flow->vip = vip_number(&packet->destination);
	flow->vip_port = packet->destination_port;
	flow->client_low = packet->source.low;
	flow->last_seen = bpf_ktime_get_coarse_ns();
	flow->state = fresh_state(packet);

	if (!quota_take(network, 0))
		return DROP_NETWORK_QUOTA;
	if (!quota_take(network, machine)) {
		reason = DROP_MACHINE_QUOTA;
		goto undo_network;
	}
	reason = backend_take(packet, service, flow);
	if (reason)
		goto undo_machine;

	for (__u32 probe = 0; probe < SLOT_PROBES; probe++) {
		struct flow *other;

		flow->key.slot = flow_slot(slots, probe);
		error = bpf_map_update_elem(&flows, &flow->key, flow, BPF_NOEXIST);
		if (!error)
			return DROP_NONE;
		if (error != -17) /* EEXIST */
			break;
		/* Another CPU had the same SYN: its entry is this flow's too. */
		other = bpf_map_lookup_elem(&flows, &flow->key);
		if (other && flow_status(other) >= FLOW_BUSY && is_flow_of(other, packet)) {
			backend_give(flow->backend, flow->backend_generation);
			quota_give(network, machine);
			quota_give(network, 0);
			return flow_forward(packet, flow_slot(slots, probe), flow) ? DROP_NONE : DROP_SLOTS_TAKEN;
		}
	}
	reason = error == -17 ? DROP_SLOTS_TAKEN : error == -7 /* E2BIG */ ? DROP_FLOW_TABLE_FULL : DROP_INTERNAL;
	backend_give(flow->backend, flow->backend_generation);
undo_machine:
	quota_give(network, machine);
undo_network:
	quota_give(network, 0);
	return reason;
}

/* Everything but an established flow of probe 0. Fills `flow`. Probes before `first` are known to be absent. */
__noinline int flycast_slow(struct packet *packet, struct flow *flow, __u32 first)
{
	__u64 slots;
	struct service *service;
	struct flow *entry = NULL;
	struct vip_key vip;

	if (!packet || !flow)
		return DROP_INTERNAL;
	slots = flow_slots(packet->source.low, vip_number(&packet->destination), packet->destination_port);
	vip.network = packet->destination.network;
	vip.number = vip_number(&packet->destination);

	service = find_service(packet);
	for (__u32 probe = first ? 1 : 0; probe < SLOT_PROBES && !entry; probe++)
		entry = flow_forward(packet, flow_slot(slots, probe), flow);
	if (entry) {
		__u32 status = flow_status(flow);

		if (status == FLOW_GONE || (status == FLOW_CLOSING && is_bare_syn(packet))) {
			if (!begins(packet))
				return DROP_BACKEND_GONE;
			if (!service || service->action != SERVICE_BALANCE)
				return DROP_NO_SERVICE;
			return flow_restart(entry, flow, packet, service);
		}
		flow_renew(entry, flow, packet, 0);
		return DROP_NONE;
	}
	if (!service)
		return bpf_map_lookup_elem(&vips, &vip) ? DROP_NO_SERVICE : DROP_NO_VIP;
	if (service->action != SERVICE_BALANCE)
		return DROP_REFUSED;
	if (!begins(packet))
		return DROP_NO_FLOW;
	return flow_insert(packet, service, slots, flow);
}

/* Of a client's address only these fields change, so only they are summed. */
static __always_inline __u32 client_change(const struct address *from, const struct address *to)
{
	return CHECKSUM_ZERO - from->low - sum32(from->host) + to->low + sum32(to->host);
}

/* A packet of an entry leaves as the client's slot, to the backend. */
static __always_inline void leave_forward(struct packet *packet, const struct flow *flow)
{
	packet->path = PATH_FORWARD;
	packet->flags = flow->flags;
	packet->new_source.low = flow->key.slot;
	if (flow->flags & FLOW_OWN_BACKEND)
		packet->new_source.host = HOST_OWN_BACKEND;
	packet->new_destination.network = flow->backend_network;
	packet->new_destination.host = flow->backend_host;
	packet->new_destination.machine = flow->backend_machine;
	packet->new_destination.low = LOW_MACHINE;
	packet->new_destination_port = flow->backend_port;
	packet->difference = client_change(&packet->source, &packet->new_source) +
			     address_change(&packet->destination, &packet->new_destination);
}

/* And its reply as the VIP's, to the client's own address. */
static __always_inline void leave_reply(struct packet *packet, const struct flow *flow)
{
	packet->path = PATH_REPLY;
	packet->flags = flow->flags;
	set_vip(&packet->new_source, flow->key.network, flow->vip);
	packet->new_source_port = flow->vip_port;
	packet->new_destination.host = host;
	packet->new_destination.low = flow->client_low;
	packet->difference = address_change(&packet->source, &packet->new_source) +
			     client_change(&packet->destination, &packet->new_destination);
}

/* A packet to a VIP: finds or makes its entry, and says how it leaves. */
static __noinline int resolve_vip(struct packet *packet)
{
	struct flow copy, *flow;
	__u64 slots;
	__u32 status = FLOW_DEAD;

	if (packet->destination.network != packet->source.network)
		return DROP_OTHER_NETWORK;
	if (packet->fragment)
		return DROP_FRAGMENT;
	/* The checksum of a rewritten packet is where it is without them. */
	if (packet->l4 != L4)
		return DROP_HEADER_CHAIN;
	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		return DROP_NO_SERVICE;

	slots = flow_slots(packet->source.low, vip_number(&packet->destination), packet->destination_port);
	flow = flow_forward(packet, flow_slot(slots, 0), &copy);
	if (flow)
		status = flow_status(&copy);
	if (status == FLOW_ESTABLISHED || status == FLOW_UDP || status == FLOW_SYN) {
		flow_renew(flow, &copy, packet, 0);
	} else {
		int reason = flycast_slow(packet, &copy, !flow);

		if (reason)
			return reason;
	}

	leave_forward(packet, &copy);
	return DROP_NONE;
}

/*
 * 1 if the entry's backend is the Machine at `address` and this its port, and the
 * client's host field is of the form that belongs to the entry.
 */
static __always_inline int is_reply_of(const struct flow *flow, const struct address *address, __u16 port,
				       __u32 client_host)
{
	return flow->backend_machine == address->machine && flow->backend_host == address->host &&
	       flow->backend_network == address->network && flow->backend_port == port &&
	       !(flow->flags & FLOW_OWN_BACKEND) == (client_host != HOST_OWN_BACKEND);
}

/* A packet to a slot's address: 1 if it is the reply of a flow, which then says how it leaves. */
static __noinline int resolve_reply(struct packet *packet)
{
	struct flow_key key = {
		.network = packet->destination.network,
		.machine = packet->destination.machine,
		.port = packet->destination_port,
		.slot = packet->destination.low,
		.protocol = packet->protocol,
	};
	struct flow copy, *flow;

	if (packet->fragment || packet->l4 != L4 ||
	    (packet->protocol == IPPROTO_TCP ? is_bare_syn(packet) : packet->protocol != IPPROTO_UDP))
		return 0;
	flow = flow_find(&key, &copy);
	if (!flow || !is_reply_of(&copy, &packet->source, packet->source_port, packet->destination.host))
		return 0;
	flow_renew(flow, &copy, packet, 1);
	leave_reply(packet, &copy);
	return 1;
}

#endif
