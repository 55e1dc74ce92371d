/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* flycast.h resolves a VIP: a flow entry, found or made; and a reply back to its VIP. */
#ifndef SIXPN_FLYCAST_H
#define SIXPN_FLYCAST_H

#include "checksum.h"
#include "choose.h"

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
