/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* address.h says what an address stands for. docs/architecture.md has the table. */
#ifndef SIXPN_ADDRESS_H
#define SIXPN_ADDRESS_H

#include "ctx.h"
#include "maps.h"

#define PREFIX 0xfdaa
#define HOST_DNS 0
#define HOST_VIP 1
#define HOST_OWN_BACKEND 2
#define HOST_FIRST 3
#define LOW_AGENT 1
#define LOW_MACHINE 2
#define LOW_DNS 3

/* This host's number, set at load. */
volatile const __u32 host;

enum address_class {
	CLASS_NONE = 0,
	CLASS_MACHINE,
	CLASS_VIP,
	CLASS_OWN_BACKEND,
	CLASS_DNS,
	CLASS_AGENT,
	CLASS_HOST_AGENT, /* among hosts, network 0 */
};

static __always_inline enum address_class classify(const struct address *address)
{
	if (address->prefix != PREFIX)
		return CLASS_NONE;
	if (address->host >= HOST_FIRST) {
		if (address->network && address->machine)
			return CLASS_MACHINE;
		if (address->machine || address->low != LOW_AGENT)
			return CLASS_NONE;
		return address->network ? CLASS_AGENT : CLASS_HOST_AGENT;
	}
	if (address->host == HOST_DNS)
		return !address->machine && address->low == LOW_DNS ? CLASS_DNS : CLASS_NONE;
	if (!address->network)
		return CLASS_NONE;
	if (address->host == HOST_VIP)
		return address->machine >> 16 ? CLASS_NONE : CLASS_VIP;
	return address->machine ? CLASS_OWN_BACKEND : CLASS_NONE;
}

static __always_inline __u32 vip_number(const struct address *address)
{
	return address->machine << 16 | address->low;
}

static __always_inline void set_vip(struct address *address, __u32 network, __u32 number)
{
	address->network = network;
	address->host = HOST_VIP;
	address->machine = number >> 16;
	address->low = number;
	address->prefix = PREFIX;
}

static __always_inline void set_agent(struct address *address, __u32 network)
{
	address->network = network;
	address->host = host;
	address->machine = 0;
	address->low = LOW_AGENT;
	address->prefix = PREFIX;
}

static __always_inline int same_machine(const struct address *a, const struct address *b)
{
	return a->machine == b->machine && a->host == b->host && a->network == b->network && a->prefix == b->prefix;
}

/* 1 for the two kinds of ports that other hosts are behind. */
static __always_inline int leads_to_hosts(const struct port *port)
{
	return port->kind == PORT_MESH || port->kind == PORT_UPLINK;
}

static __always_inline struct port *find_port(__u32 ifindex)
{
	for (__u32 i = 0; i < SLOT_TRIES; i++) {
		__u32 slot = (port_home(ifindex) + i) & (SLOTS - 1);
		struct port *port = bpf_map_lookup_elem(&port_slots, &slot);

		if (port && port->ifindex == ifindex)
			return port;
	}
	return NULL;
}

static __always_inline struct machine *find_machine(__u32 network, __u32 number)
{
	for (__u32 i = 0; i < SLOT_TRIES; i++) {
		__u32 slot = (machine_home(network, number) + i) & (SLOTS - 1);
		struct machine *machine = bpf_map_lookup_elem(&machine_slots, &slot);

		if (machine && machine->machine == number && machine->network == network)
			return machine;
	}
	return NULL;
}

static __always_inline void store_address(void *raw, const struct address *address)
{
	*(__be16 *)raw = bpf_htons(address->prefix);
	*(__be32 *)(raw + 2) = bpf_htonl(address->network);
	*(__be32 *)(raw + 6) = bpf_htonl(address->host);
	*(__be32 *)(raw + 10) = bpf_htonl(address->machine);
	*(__be16 *)(raw + 14) = bpf_htons(address->low);
}

#endif
