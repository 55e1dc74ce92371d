/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * types.h is the whole ABI between the router's C and its Go.
 *
 * Every number is in host byte order unless its name says otherwise; the packet
 * is converted once, when it is parsed. All padding is explicit, so that a map
 * value can be compared byte by byte and a key has one representation.
 */
#ifndef SIXPN_TYPES_H
#define SIXPN_TYPES_H

#include <linux/types.h>

#define ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " is not " #size " bytes")

/* Why a packet did not go on. 0 is "go on". docs/drop-reasons.md explains each. */
enum drop_reason {
	DROP_NONE = 0,

	/* parse */
	DROP_NOT_IPV6,
	DROP_BAD_LENGTH,
	DROP_HOP_BY_HOP,
	DROP_ROUTING_HEADER,
	DROP_HEADER_CHAIN,
	DROP_FIRST_FRAGMENT,
	DROP_CHECKSUM_OFFLOAD,

	/* admit */
	DROP_UNKNOWN_PORT,
	DROP_SPOOFED_SOURCE,
	DROP_LINK_LOCAL,
	DROP_MULTICAST,
	DROP_NEIGHBOUR_NOISE,
	DROP_MULTICAST_NOISE,
	DROP_ROUTER_ADVERTISEMENT,
	DROP_REDIRECT,
	DROP_NEIGHBOUR_SPOOFING,

	/* resolve */
	DROP_UNKNOWN_DESTINATION,
	DROP_OTHER_NETWORK,
	DROP_OTHER_HOST,
	DROP_NO_MACHINE,
	DROP_HOST_SERVICE,
	DROP_FRAGMENT,
	DROP_UNMATCHED_ERROR,
	DROP_FABRIC_ERRORS,
	DROP_HOP_LIMIT,
	DROP_TOO_BIG,

	/* Flycast */
	DROP_NO_VIP,
	DROP_NO_SERVICE,
	DROP_NO_BACKEND,
	DROP_REFUSED,
	DROP_NO_FLOW,
	DROP_BACKEND_GONE,
	DROP_BACKEND_LIMIT,
	DROP_MACHINE_QUOTA,
	DROP_NETWORK_QUOTA,
	DROP_FLOW_TABLE_FULL,
	DROP_SLOTS_TAKEN,
	DROP_FENCED,

	/* leave */
	DROP_WALL,
	DROP_INTERNAL,

	DROP_REASONS,
};

/* What kind of device a packet came in by, or leaves by. */
enum port_kind {
	PORT_NONE = 0,
	PORT_MACHINE,
	PORT_HOST,
	PORT_MESH,
	PORT_GATEWAY,
	PORT_WAKE,
	PORT_UPLINK, /* the host's own device that leads to a fabric which routes between hosts */
};

/* UDP between the agents of hosts, from this port to this port: load, and shares of limits. */
enum load_port {
	LOAD_PORT = 5182,
};

/* How a frame is handed to a device. */
enum redirect_method {
	REDIRECT_EGRESS = 0, /* bpf_redirect: a tap, the mesh, or a veth whose peer is in this namespace */
	REDIRECT_PEER = 1,   /* bpf_redirect_peer: a veth whose peer is in another namespace */
	REDIRECT_XDP = 3,    /* as REDIRECT_PEER; and its peer takes frames of XDP, which needs NAPI there */
	REDIRECT_NEIGHBOUR = 2, /* bpf_redirect_neigh: the uplink; the host's routes and neighbours say where to */
};

/*
 * `port_slots` and `machine_slots` are read for every packet, so they are arrays
 * with open addressing instead of hashes, whose look-up is a call: an element is
 * at one of SLOT_TRIES places from its home on, and holds its own key. Go writes
 * the key last and clears it first. slots.go has the Go side.
 */
#define SLOTS 16384
#define SLOT_TRIES 16

static inline __attribute__((always_inline)) __u32 port_home(__u32 ifindex)
{
	return ifindex;
}

/* Mixed, for numbers count up in every network: their runs must not lie on each other. */
static inline __attribute__((always_inline)) __u32 machine_home(__u32 network, __u32 machine)
{
	__u32 hash = (network * 0x9e3779b1U) ^ (machine * 0x85ebca6bU);

	hash = (hash ^ hash >> 15) * 0x2c1b3c6dU;
	return hash ^ hash >> 16;
}

/* A device of the router. Element of `port_slots`, by ifindex. */
struct port {
	__u32 network;
	__u32 host;
	__u32 machine;
	__u32 counters; /* index into `port_counters` */
	__u16 mtu;      /* largest IPv6 packet this device takes, bytes */
	__u8 kind;      /* enum port_kind */
	__u8 redirect;  /* enum redirect_method */
	__u8 mac[6];    /* the router's own address on this link */
	__u8 pad[2];
	__u32 ifindex; /* the key; 0: no element */
};
ASSERT_SIZE(struct port, 32);

/* A Machine or peer, or as machine 0 a whole network: key of `quotas`. */
struct machine_key {
	__u32 network;
	__u32 machine;
};
ASSERT_SIZE(struct machine_key, 8);

/* Where a Machine of this host is. Element of `machine_slots`, by network and machine. */
struct machine {
	__u32 ifindex;
	__u32 counters; /* index into `port_counters` */
	__u16 mtu;
	__u8 kind;     /* PORT_MACHINE or PORT_GATEWAY */
	__u8 redirect; /* enum redirect_method */
	__u8 mac[6];        /* the guest's address */
	__u8 router_mac[6]; /* the router's own address on that link */
	__u32 network; /* the key; network 0: no element */
	__u32 machine;
};
ASSERT_SIZE(struct machine, 32);

/* Both directions as the device sees them: rx is what the Machine sent. */
struct counters {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 dropped;
};
ASSERT_SIZE(struct counters, 40);

/* Key of `port_drops`. */
struct port_drop_key {
	__u32 ifindex;
	__u32 reason; /* enum drop_reason */
};
ASSERT_SIZE(struct port_drop_key, 8);

/*
 * A device of the host's own. Only element of `host_port`, the way into the private
 * namespace, and of `mesh_device`. Laid out as struct machine, so that one piece of
 * code sends to either.
 */
struct host_device {
	__u32 ifindex; /* 0: there is none; then DNS, or every other host, is unreachable */
	__u32 counters;
	__u16 mtu;
	__u8 pad;
	__u8 redirect; /* enum redirect_method; of the mesh */
	__u8 mac[6]; /* of the device inside the private namespace; the mesh has none */
	__u8 router_mac[6];
	__u8 unused[8];
};
ASSERT_SIZE(struct host_device, 32);

/* A Flycast address that exists, whatever its services. Key of `vips`. */
struct vip_key {
	__u32 network; /* whose clients see it */
	__u32 number;  /* N of fdaa:<network>:0:1::N, the low 32 bits */
};
ASSERT_SIZE(struct vip_key, 8);

/*
 * Clients of one network may reach this port of a Machine of this host that is of
 * another network. Key of `allocations`.
 */
struct allocation_key {
	__u32 client_network;
	__u32 backend_network;
	__u32 backend_machine;
	__u16 port;    /* of the backend */
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};
ASSERT_SIZE(struct allocation_key, 16);

#include "types_flycast.h"

#define EVENT_BYTES 128

/* A sampled drop, in the ring buffer `events`. Of the mesh, with addresses as Machines know them. */
struct drop_event {
	__u64 time; /* ns, CLOCK_MONOTONIC */
	__u32 ifindex;
	__u32 reason; /* enum drop_reason */
	__u32 length; /* of the frame */
	__u32 captured; /* bytes valid in data */
	__u8 data[EVENT_BYTES]; /* from the Ethernet header on, as it arrived */
};
ASSERT_SIZE(struct drop_event, 152);

/* A TCP flow whose backend is gone, in the ring buffer `resets`. */
struct reset_event {
	__u32 network;
	__u32 host;
	__u32 machine;
	__u32 vip;
	__u16 client_low;
	__u16 client_port;
	__u16 vip_port;
	__u16 pad;
};
ASSERT_SIZE(struct reset_event, 24);

/* Token bucket of drop events, one a CPU. */
struct bucket {
	__u64 refilled; /* ns */
	__u64 tokens;
	__u64 lost; /* events not sent for want of a token or of room */
};
ASSERT_SIZE(struct bucket, 24);

/* Flows that one run of the expiry program judges at most; elements of `expiry_keys`. */
#define EXPIRY_KEYS 4096

/* Context of the expiry program. */
struct expiry_request {
	__u32 count; /* of keys that Go put into `expiry_keys` */
	__u32 pad;
};
ASSERT_SIZE(struct expiry_request, 8);

/* Timeouts in, sums out. Only element of `expiry`. */
struct expiry_pass {
	__u64 timeout_syn; /* ns; the four are set by Go */
	__u64 timeout_established;
	__u64 timeout_closing;
	__u64 timeout_udp;
	__u64 seen; /* the three count up; the expiry program writes them */
	__u64 expired;
	__u64 gone;
};
ASSERT_SIZE(struct expiry_pass, 56);

#endif
