/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* types_flycast.h is the part of types.h, and of the ABI, that is Flycast's: services, backends, flows. */
#ifndef SIXPN_TYPES_FLYCAST_H
#define SIXPN_TYPES_FLYCAST_H

enum service_action {
	SERVICE_REFUSE = 0,
	SERVICE_BALANCE,
	SERVICE_HANDLER,
	SERVICE_WAKE,
};

#define SERVICE_CROSS_NETWORK 0x01 /* backends are in another network than the VIP */
#define SERVICE_SHARED 0x02        /* its limits are those of all hosts together: see struct share */

/* Key of `services`. */
struct service_key {
	__u32 network;
	__u32 vip;
	__u16 port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};
ASSERT_SIZE(struct service_key, 12);

/* Key of `service_ranges`, a longest-prefix-match trie, hence big endian. */
struct service_range_key {
	__u32 prefix_length; /* bits: 72 + those of the port */
	__be32 network;
	__be32 vip;
	__u8 protocol;
	__u8 port[2]; /* big endian */
	__u8 pad;
};
ASSERT_SIZE(struct service_range_key, 16);

#define SERVICE_REGIONS 4 /* of one service at most, by distance; maps.MaxRegions */

struct service {
	__u32 id;         /* never reused; tells events and counters which service */
	__u32 generation; /* of the Maglev regions */
	__u32 offset;     /* first element of the nearest backends' region in `maglev` */
	__u32 prime;      /* its length; 0: no backend */
	__u32 soft_limit; /* live flows a backend, 0: none */
	__u32 hard_limit;
	__u8 action;      /* enum service_action */
	__u8 flags;       /* SERVICE_* */
	__u8 pad[2];
	__u32 length; /* of all from offset on, if farther regions follow: each behind an element with its prime */
};
ASSERT_SIZE(struct service, 32);

#define BACKEND_GONE 0x01 /* its process is gone: its flows get a reset */

/* Element of `backends`; `maglev` holds indices into it. 0 is never used. */
struct backend {
	__u32 network;
	__u32 host;
	__u32 machine;
	__u32 generation; /* counts the users of this element; a flow of an older one does not count */
	__u16 port; /* internal port */
	__u8 flags; /* BACKEND_* */
	__u8 pad;
	__u32 service; /* id of the service it belongs to */
};
ASSERT_SIZE(struct backend, 24);

/*
 * A flow's slot takes the place of the low 16 bits of the client's address:
 * SLOT_BIT | hash15(client low, VIP, VIP port, probe). The hash, flow_slots() in
 * flow.h, is part of the ABI: a newer program must find the flows of an older one.
 */
#define SLOT_BIT 0x8000
#define SLOT_PROBES 4

enum flow_state {
	FLOW_DEAD = 0,
	FLOW_BUSY, /* being rewritten by another CPU */
	FLOW_SYN, /* TCP, no answer yet */
	FLOW_ESTABLISHED, /* TCP */
	FLOW_CLOSING, /* TCP, both FINs or a reset seen */
	FLOW_UDP,
	FLOW_GONE, /* its backend's process is gone */
};

/*
 * The state word: a state, what was seen of the TCP connection, and above them a
 * random tag, new with each use of the element, so that a compare-and-swap meant
 * for an older use fails.
 */
#define FLOW_STATE_MASK 0x0f
#define FLOW_FIN_FORWARD 0x10
#define FLOW_FIN_REPLY 0x20
#define FLOW_ANSWERED 0x40
#define FLOW_UNCOUNTED 0x80 /* it has closed, and is no live flow of its backend any more */
#define FLOW_TAG_MASK 0xffffff00

/* The same key is in the header of a reply, as its destination. Compared as two words, hence the alignment. */
struct flow_key {
	__u32 network; /* the client's */
	__u32 machine;
	__u16 port;
	__u16 slot;
	__u8 protocol;
	__u8 pad[3];
} __attribute__((aligned(8)));
ASSERT_SIZE(struct flow_key, 16);

#define FLOW_CROSS_NETWORK 0x01
#define FLOW_OWN_BACKEND 0x02

struct flow {
	struct flow_key key; /* again: a freed element may have become another flow's */
	__u32 vip;
	__u16 vip_port;
	__u16 client_low;
	__u32 backend_network;
	__u32 backend_host;
	__u32 backend_machine;
	__u16 backend_port;
	__u8 flags; /* FLOW_* */
	__u8 pad;
	__u32 backend; /* index, and */
	__u32 backend_generation;
	__u64 last_seen; /* ns of CLOCK_MONOTONIC_COARSE */
	__u32 service; /* id */
	__u32 state; /* the state word; changed by compare-and-swap only */
};
ASSERT_SIZE(struct flow, 64);

/* Live flows of a client. Key of `quotas`: {network, machine}; machine 0 is the whole network. */
struct quota {
	__u32 used;
	__u32 limit;
	__u64 refused;
};
ASSERT_SIZE(struct quota, 16);

/* Element of `backend_load`, same index as in `backends`. */
struct load {
	__u32 live; /* flows now */
	__u32 generation; /* of the backend that they are counted for */
	__u64 total; /* flows ever given to it */
};
ASSERT_SIZE(struct load, 16);

/*
 * What hosts have agreed on about a backend of a SERVICE_SHARED service. Element of
 * `shares`, same index as in `backends`.
 */
struct share {
	__u32 limit;     /* live flows that this host may have with it, of its hard limit */
	__u32 elsewhere; /* live flows that other hosts have with it, for its soft limit */
	__u32 wanted;    /* set to 1 when a flow is refused for want of a share; Go clears it */
	__u32 pad;
};
ASSERT_SIZE(struct share, 16);

/*
 * Key of `fences`: a backend of this host, and another host that counted as lost while
 * clients of it had flows there. Their places are others' by now, so no packet of such a
 * flow gets in until that host has said that it has none.
 */
struct fence_key {
	__u32 client_host;
	__u32 network; /* of the backend, as the rest */
	__u32 machine;
	__u16 port;    /* internal port */
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};
ASSERT_SIZE(struct fence_key, 16);

#endif
