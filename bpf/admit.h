/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* admit.h decides whether a port may send this at all: who it says it is, and link-local traffic. */
#ifndef SIXPN_ADMIT_H
#define SIXPN_ADMIT_H

#include "address.h"
#include "maps.h"
#include "parse.h"

#define ICMP_ECHO_REQUEST 128
#define ICMP_ECHO_REPLY 129
#define ICMP_MLD_QUERY 130
#define ICMP_MLD_DONE 132
#define ICMP_ROUTER_SOLICITATION 133
#define ICMP_ROUTER_ADVERTISEMENT 134
#define ICMP_NEIGHBOUR_SOLICITATION 135
#define ICMP_NEIGHBOUR_ADVERTISEMENT 136
#define ICMP_REDIRECT 137
#define ICMP_ROUTER_RENUMBERING 138
#define ICMP_INVERSE_SOLICITATION 141
#define ICMP_INVERSE_ADVERTISEMENT 142
#define ICMP_MLD2_REPORT 143
#define ICMP_CERTIFICATE_SOLICITATION 148
#define ICMP_MULTICAST_ROUTER_LAST 153

/* Not a drop: the router itself answers, and answer.h makes the answer. */
#define ANSWER_NEIGHBOUR (DROP_REASONS + 1)
#define ANSWER_ECHO (DROP_REASONS + 2)

/* Not one either: XDP leaves the frame, as it came, to the program on tcx. */
#define HAND_OVER (DROP_REASONS + 3)

struct solicitation {
	struct icmp6hdr icmp;
	__be32 target[4];
};

static __always_inline int is_link_local(__u16 prefix)
{
	return (prefix & 0xffc0) == 0xfe80;
}

/* fe80::1, the gateway of every port. */
static __always_inline int is_gateway(const __be32 raw[4])
{
	return raw[0] == bpf_htonl(0xfe800000) && !raw[1] && !raw[2] && raw[3] == bpf_htonl(1);
}

/*
 * Neighbour discovery and multicast listener messages by type, whatever their
 * addresses: between Machines they would be forgeries, and hop limit 255 alone
 * does not say where they began. RFC 4861, RFC 2710, RFC 3810, RFC 3971, RFC 4286.
 */
__noinline int admit_neighbour(context *ctx, struct packet *packet, struct port *port)
{
	struct solicitation solicitation;
	__be32 source[4];

	if (!packet || !port)
		return DROP_INTERNAL;

	switch (packet->icmp_type) {
	case ICMP_ROUTER_SOLICITATION:
		return DROP_NEIGHBOUR_NOISE;
	case ICMP_ROUTER_ADVERTISEMENT:
		return DROP_ROUTER_ADVERTISEMENT;
	case ICMP_REDIRECT:
		return DROP_REDIRECT;
	case ICMP_NEIGHBOUR_SOLICITATION:
		break;
	case ICMP_MLD_QUERY ... ICMP_MLD_DONE:
	case ICMP_MLD2_REPORT:
		return DROP_MULTICAST_NOISE;
	default:
		return DROP_NEIGHBOUR_SPOOFING;
	}

	/* RFC 4861, 7.1.1; RFC 6980 forbids fragments. */
	if (packet->hop_limit != 255 || packet->fragment || packet->l4 != L4 ||
	    packet->payload < sizeof(solicitation) || load_bytes(ctx, L4, &solicitation, sizeof(solicitation)) ||
	    solicitation.icmp.icmp6_code || load_bytes(ctx, L3 + 8, source, sizeof(source)))
		return DROP_NEIGHBOUR_SPOOFING;
	/* Duplicate address detection. Nobody but the Machine has its /112. */
	if (!source[0] && !source[1] && !source[2] && !source[3])
		return DROP_NEIGHBOUR_NOISE;
	if (!is_link_local(packet->source.prefix) &&
	    (packet->source.prefix != PREFIX || packet->source.network != port->network ||
	     packet->source.host != port->host || packet->source.machine != port->machine))
		return DROP_SPOOFED_SOURCE;
	if (!is_gateway(solicitation.target))
		return DROP_NEIGHBOUR_NOISE;
	return ANSWER_NEIGHBOUR;
}

static __always_inline int is_neighbour_message(__u8 type)
{
	return type >= ICMP_MLD_QUERY &&
	       (type <= ICMP_ROUTER_RENUMBERING || type == ICMP_MLD2_REPORT || type == ICMP_INVERSE_SOLICITATION ||
		type == ICMP_INVERSE_ADVERTISEMENT ||
		(type >= ICMP_CERTIFICATE_SOLICITATION && type <= ICMP_MULTICAST_ROUTER_LAST));
}

/*
 * 1 if the sender of a packet that another host's router let through may hear why it goes
 * no further: answer.h says how.
 */
static __always_inline int is_answered(int reason)
{
	return reason > DROP_REASONS || reason == DROP_NO_MACHINE || reason == DROP_TOO_BIG || reason == DROP_HOP_LIMIT;
}

/* Only an echo request in one piece, without extension headers, is answered. */
static __always_inline int admit_echo(const struct packet *packet)
{
	if (packet->fragment)
		return DROP_FRAGMENT;
	return packet->l4 == L4 ? ANSWER_ECHO : DROP_HEADER_CHAIN;
}

/* What agents of hosts say to each other of load. Its ends are looked at where it is let through. */
static __always_inline int is_load(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP && !packet->fragment && packet->l4 == L4 &&
	       packet->source_port == LOAD_PORT && packet->destination_port == LOAD_PORT;
}

/* What the private namespace may say it is; to whom is left to the final check. */
static __always_inline int admit_host(const struct packet *packet)
{
	const struct address *source = &packet->source;

	switch (classify(source)) {
	case CLASS_DNS:
	case CLASS_VIP:
		return DROP_NONE;
	case CLASS_AGENT:
	case CLASS_HOST_AGENT:
		return source->host == host ? DROP_NONE : DROP_SPOOFED_SOURCE;
	default:
		return is_link_local(source->prefix) || !source->prefix ? DROP_NEIGHBOUR_NOISE : DROP_SPOOFED_SOURCE;
	}
}

/*
 * What another host may send. Cryptokey routing proves its host field, and nothing
 * else: a host can pretend to be any Machine of its own, never one of another host.
 * On an uplink it is the fabric that is trusted to prove it.
 */
static __always_inline int admit_mesh(const struct packet *packet, const struct port *port, enum entry entry)
{
	const struct address *source = &packet->source, *destination = &packet->destination;

	if (port->kind != (entry == ENTRY_UPLINK ? PORT_UPLINK : PORT_MESH))
		return DROP_UNKNOWN_PORT;
	if (packet->protocol == IPPROTO_ICMPV6 && is_neighbour_message(packet->icmp_type))
		return DROP_NEIGHBOUR_SPOOFING;
	switch (classify(source)) {
	case CLASS_MACHINE:
	case CLASS_AGENT:
	case CLASS_HOST_AGENT:
		if (source->host != host)
			break;
		return DROP_SPOOFED_SOURCE;
	default:
		return DROP_SPOOFED_SOURCE;
	}
	switch (classify(destination)) {
	case CLASS_MACHINE:
	case CLASS_AGENT:
	case CLASS_HOST_AGENT:
		return destination->host == host ? DROP_NONE : DROP_OTHER_HOST;
	default:
		return DROP_UNKNOWN_DESTINATION;
	}
}

static __always_inline int admit(context *ctx, struct packet *packet, struct port *port)
{
	if (packet->protocol == IPPROTO_ICMPV6 && is_neighbour_message(packet->icmp_type))
		return admit_neighbour(ctx, packet, port);

	switch (port->kind) {
	case PORT_MACHINE:
		if (packet->source.machine == port->machine && packet->source.network == port->network &&
		    packet->source.host == port->host && packet->source.prefix == PREFIX)
			break;
		return is_link_local(packet->source.prefix) ? DROP_LINK_LOCAL : DROP_SPOOFED_SOURCE;
	case PORT_HOST: {
		int reason = admit_host(packet);

		if (reason)
			return reason;
		break;
	}
	default:
		return DROP_UNKNOWN_PORT;
	}

	if (packet->destination.prefix != PREFIX) {
		if (packet->destination.prefix >> 8 == 0xff)
			return DROP_MULTICAST;
		if (is_link_local(packet->destination.prefix)) {
			__be32 raw[4];

			if (packet->icmp_type == ICMP_ECHO_REQUEST && packet->protocol == IPPROTO_ICMPV6 &&
			    !load_bytes(ctx, L3 + 24, raw, sizeof(raw)) && is_gateway(raw))
				return admit_echo(packet);
			return DROP_LINK_LOCAL;
		}
		return DROP_UNKNOWN_DESTINATION;
	}
	return DROP_NONE;
}

#endif
