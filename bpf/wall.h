/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * wall.h is what may leave: the table of docs/architecture.md. It reads only the pair
 * that the packet is about to carry, the two ports, and what the flow entry or the
 * allocation says, so that no mistake of an earlier stage crosses a wall.
 */
#ifndef SIXPN_WALL_H
#define SIXPN_WALL_H

#include "error.h"

/* TCP that begins nothing, an echo reply, an error: what comes back to an agent that asked. */
static __always_inline int is_answer(const struct packet *packet)
{
	if (packet->fragment)
		return 0;
	if (packet->protocol == IPPROTO_TCP)
		return !is_bare_syn(packet);
	return is_error(packet) || (packet->protocol == IPPROTO_ICMPV6 && packet->icmp_type == ICMP_ECHO_REPLY);
}

/* From a Machine, into the namespace or to a Machine of this host. */
static __always_inline int machine_may(const struct packet *packet, __u32 ifindex)
{
	const struct address *source = &packet->new_source, *destination = &packet->new_destination;
	enum address_class from = classify(source), to = classify(destination);
	int same_network = source->network == destination->network;

	if (packet->path == PATH_HOST) {
		if (from != CLASS_MACHINE)
			return 0;
		if (to == CLASS_DNS)
			return same_network || !destination->network;
		return same_network && (to == CLASS_VIP || (to == CLASS_AGENT && destination->host == host));
	}
	if (to != CLASS_MACHINE || destination->host != host)
		return 0;
	switch (from) {
	case CLASS_MACHINE:
		return same_network || (packet->path == PATH_FORWARD && packet->flags & FLOW_CROSS_NETWORK);
	case CLASS_VIP:
		return same_network && packet->path == PATH_REPLY;
	case CLASS_OWN_BACKEND:
		return same_network && source->machine == destination->machine && packet->path == PATH_FORWARD &&
		       packet->flags & FLOW_OWN_BACKEND && ifindex == packet->ifindex;
	default:
		return 0;
	}
}

/* From the private namespace to a Machine of this host. */
static __always_inline int host_may(const struct packet *packet)
{
	const struct address *source = &packet->new_source, *destination = &packet->new_destination;
	enum address_class from = classify(source);
	int same_network = source->network == destination->network;

	if (packet->path != PATH_PLAIN || classify(destination) != CLASS_MACHINE || destination->host != host)
		return 0;
	if (from == CLASS_DNS)
		return same_network || !source->network;
	return same_network && (from == CLASS_VIP || (from == CLASS_AGENT && source->host == host));
}

/* From another host to a Machine of this one, or to its agent. */
static __always_inline int mesh_may(const struct packet *packet)
{
	const struct address *source = &packet->new_source, *destination = &packet->new_destination;
	enum address_class from = classify(source), to = classify(destination);
	int same_network = source->network == destination->network;

	if (packet->source.host == host || packet->source.host < HOST_FIRST || destination->host != host)
		return 0;
	if (packet->path == PATH_HOST) {
		if (to == CLASS_HOST_AGENT)
			return from == CLASS_HOST_AGENT &&
			       (is_load(packet) || (packet->protocol == IPPROTO_ICMPV6 && is_answer(packet)));
		return to == CLASS_AGENT && from == CLASS_MACHINE && same_network && is_answer(packet);
	}
	if (to != CLASS_MACHINE)
		return 0;
	if (packet->path == PATH_FABRIC)
		return from == CLASS_AGENT && source->host == host && same_network && is_error(packet);
	switch (from) {
	case CLASS_MACHINE:
		return same_network || (packet->path == PATH_ALLOCATED && is_allocated(packet, 0));
	case CLASS_AGENT:
		return same_network;
	case CLASS_VIP:
		return same_network && packet->path == PATH_REPLY;
	default:
		return 0;
	}
}

/* To another host, from a Machine or the private namespace: never from the mesh. */
static __always_inline int may_leave_host(const struct packet *packet, const struct port *in)
{
	const struct address *source = &packet->new_source, *destination = &packet->new_destination;
	enum address_class from = classify(source), to = classify(destination);
	int same_network = source->network == destination->network;

	if (source->host != host || destination->host == host || destination->host < HOST_FIRST)
		return 0;
	if (in->kind == PORT_MACHINE) {
		if (from != CLASS_MACHINE)
			return 0;
		if (to == CLASS_AGENT)
			return same_network && is_answer(packet);
		if (to != CLASS_MACHINE)
			return 0;
		return same_network || (packet->path == PATH_FORWARD && packet->flags & FLOW_CROSS_NETWORK) ||
		       (packet->path == PATH_ALLOCATED && is_allocated(packet, 1));
	}
	if (in->kind == PORT_HOST && packet->path == PATH_PLAIN) {
		if (from == CLASS_HOST_AGENT)
			return to == CLASS_HOST_AGENT &&
			       (is_load(packet) || (packet->protocol == IPPROTO_ICMPV6 &&
						    (packet->icmp_type == ICMP_ECHO_REQUEST || is_error(packet))));
		return from == CLASS_AGENT && to == CLASS_MACHINE && same_network;
	}
	return 0;
}

/* To a device of this host. */
static __always_inline int may_leave(const struct packet *packet, const struct port *in, __u32 ifindex, int mesh)
{
	if (mesh)
		return leads_to_hosts(in) && mesh_may(packet);
	if (in->kind == PORT_MACHINE)
		return machine_may(packet, ifindex);
	return in->kind == PORT_HOST && host_may(packet);
}

#endif
