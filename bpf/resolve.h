/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* resolve.h finds where a packet goes: a Machine, a VIP's backend, a flow's client, the private namespace. */
#ifndef SIXPN_RESOLVE_H
#define SIXPN_RESOLVE_H

#include "admit.h"
#include "error.h"
#include "flycast.h"

#define PORT_DNS 53

/* What the private namespace takes: queries, and answers to what it asked itself. */
static __always_inline int resolve_host(struct packet *packet)
{
	packet->path = PATH_HOST;
	if (packet->fragment)
		return DROP_FRAGMENT;
	if (is_error(packet))
		return DROP_NONE;
	if (packet->destination.host == HOST_DNS) {
		if ((packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP) &&
		    packet->destination_port == PORT_DNS)
			return DROP_NONE;
		if (packet->protocol == IPPROTO_ICMPV6 && packet->icmp_type == ICMP_ECHO_REQUEST)
			return admit_echo(packet);
		return DROP_HOST_SERVICE;
	}
	if (packet->protocol == IPPROTO_TCP && !is_bare_syn(packet))
		return DROP_NONE;
	if (packet->protocol == IPPROTO_ICMPV6 && packet->icmp_type == ICMP_ECHO_REPLY)
		return DROP_NONE;
	return DROP_HOST_SERVICE;
}

static __always_inline int resolve_echo(const struct packet *packet)
{
	struct vip_key vip = { packet->destination.network, vip_number(&packet->destination) };

	if (packet->destination.network != packet->source.network)
		return DROP_OTHER_NETWORK;
	return bpf_map_lookup_elem(&vips, &vip) ? admit_echo(packet) : DROP_NO_VIP;
}

/*
 * To an agent's address. The one inside a network takes answers; of those of other
 * hosts, so does its own router's check again when they arrive. Among hosts, the
 * agent asks the others' routers for an echo, and tells their agents of load.
 */
static __always_inline int resolve_agent(struct packet *packet, const struct port *port)
{
	const struct address *destination = &packet->destination;
	int reason;

	if (destination->low != LOW_AGENT)
		return DROP_UNKNOWN_DESTINATION;
	if (port->kind == PORT_HOST) {
		if (destination->network || packet->source.network || destination->host == host)
			return DROP_UNKNOWN_DESTINATION;
		return packet->protocol == IPPROTO_ICMPV6 || is_load(packet) ? DROP_NONE : DROP_HOST_SERVICE;
	}
	reason = resolve_host(packet);
	if (destination->host != host)
		packet->path = PATH_PLAIN;
	return reason;
}

/*
 * Whether this is of a flow that has lost its place. A client that chose itself an address
 * with the slot bit is taken for one while there is a fence, which is seldom and short.
 */
static __always_inline int is_fenced(const struct packet *packet)
{
	__u32 zero = 0, *any = bpf_map_lookup_elem(&fenced, &zero);
	struct fence_key key = {
		.client_host = packet->source.host,
		.network = packet->destination.network,
		.machine = packet->destination.machine,
		.port = packet->destination_port,
		.protocol = packet->protocol,
	};

	return any && *any && bpf_map_lookup_elem(&fences, &key);
}

/* From another host; admit has seen that the destination is here. */
static __always_inline int resolve_mesh(struct packet *packet)
{
	const struct address *destination = &packet->destination;
	int same_network = destination->network == packet->source.network;

	if (!destination->machine) {
		if (!same_network)
			return DROP_OTHER_NETWORK;
		/* Among hosts agents ask agents, inside a network Machines do. */
		if (!destination->network == !!packet->source.machine)
			return DROP_HOST_SERVICE;
		if (packet->protocol == IPPROTO_ICMPV6 && packet->icmp_type == ICMP_ECHO_REQUEST)
			return admit_echo(packet);
		if (!destination->network && packet->protocol != IPPROTO_ICMPV6) {
			packet->path = PATH_HOST;
			return is_load(packet) ? DROP_NONE : DROP_HOST_SERVICE;
		}
		return resolve_host(packet);
	}
	if (destination->low & SLOT_BIT && resolve_reply(packet))
		return DROP_NONE;
	if (packet->source.low & SLOT_BIT && is_fenced(packet))
		return DROP_FENCED;
	if (same_network)
		return DROP_NONE;
	if (packet->fragment)
		return DROP_FRAGMENT;
	if (!packet->source.machine || !is_allocated(packet, 0))
		return DROP_OTHER_NETWORK;
	packet->path = PATH_ALLOCATED;
	return DROP_NONE;
}

/* From a Machine to another network's on another host: only a backend to its client. */
static __noinline int resolve_allocated(struct packet *packet)
{
	if (!packet->destination.machine || !is_allocated(packet, 1))
		return DROP_OTHER_NETWORK;
	packet->path = PATH_ALLOCATED;
	return DROP_NONE;
}

static __always_inline int resolve(context *ctx, struct packet *packet, struct port *port, int mesh)
{
	struct address *destination = &packet->destination;

	packet->new_source = packet->source;
	packet->new_destination = *destination;
	packet->new_source_port = packet->source_port;
	packet->new_destination_port = packet->destination_port;

	if (is_error(packet)) {
		int reason = resolve_error(ctx, packet, port);

		if (reason || packet->path != PATH_PLAIN)
			return reason;
	}

	if (mesh)
		return resolve_mesh(packet);

	if (destination->host < HOST_FIRST) {
		if (port->kind == PORT_HOST)
			return DROP_UNKNOWN_DESTINATION;
		switch (classify(destination)) {
		case CLASS_VIP:
			if (packet->protocol == IPPROTO_ICMPV6 && packet->icmp_type == ICMP_ECHO_REQUEST)
				return resolve_echo(packet);
			return resolve_vip(packet);
		case CLASS_DNS:
			if (destination->network && destination->network != packet->source.network)
				return DROP_OTHER_NETWORK;
			return resolve_host(packet);
		case CLASS_OWN_BACKEND:
			if (!same_machine(&(struct address){ destination->network, port->host, destination->machine, 0,
							     PREFIX },
					  &packet->source))
				return DROP_OTHER_NETWORK;
			return resolve_reply(packet) ? DROP_NONE : DROP_NO_FLOW;
		default:
			return DROP_UNKNOWN_DESTINATION;
		}
	}

	/* Only addresses with the slot bit can be a flow's: others cost no look-up. */
	if (destination->low & SLOT_BIT && destination->host == host && destination->machine &&
	    port->kind == PORT_MACHINE && resolve_reply(packet))
		return DROP_NONE;
	if (port->kind == PORT_MACHINE && destination->network != packet->source.network)
		return destination->host == host ? DROP_OTHER_NETWORK : resolve_allocated(packet);
	return destination->machine ? DROP_NONE : resolve_agent(packet, port);
}

#endif
