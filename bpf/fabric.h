/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * fabric.h is about errors of the routers between hosts. Nobody can prove who they are:
 * what they quote has to be something that this host sends.
 */
#ifndef SIXPN_FABRIC_H
#define SIXPN_FABRIC_H

#include "admit.h"
#include "count.h"
#include "resolve.h"

/* An ICMPv6 error from an address that is none of ours. */
static __always_inline int is_fabric_error(const struct packet *packet)
{
	return is_error(packet) && packet->source.prefix != PREFIX;
}

/*
 * Such an error is judged as if whom the quoted packet was sent to had made it: by the
 * same network, an allocation, or a flow, with which the quote is translated. It reaches a
 * Machine in the name of its network's agent, as every error that the router makes itself,
 * or of the VIP.
 */
__noinline int resolve_fabric(struct __sk_buff *skb, struct packet *packet, struct port *port)
{
	struct address fabric;
	void *data, *end;
	int reason;

	if (!packet || !port)
		return DROP_INTERNAL;
	linearize(skb, QUOTE + QUOTE_READ);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (packet->l4 != L4 || data + QUOTE + QUOTE_READ > end)
		return DROP_UNMATCHED_ERROR;
	fabric = packet->source;
	load_address(&packet->source, data + QUOTE + 24);
	reason = admit_mesh(packet, port, ENTRY_UPLINK);
	if (reason)
		return reason;
	reason = resolve(skb, packet, port, 1);
	if (reason)
		return reason;
	/* Agents learn from their own probes what they have to know. */
	if (packet->path == PATH_HOST)
		return DROP_HOST_SERVICE;
	if (packet->path != PATH_REPLY) {
		packet->path = PATH_FABRIC;
		set_agent(&packet->new_source, packet->destination.network);
		packet->difference = address_change(&packet->source, &packet->new_source);
	}
	packet->difference += address_change(&fabric, &packet->source);
	return may_have_error(port, packet->destination.network) ? DROP_NONE : DROP_FABRIC_ERRORS;
}

#endif
