/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * ctx.h is what a packet is, and, below, what of it depends on the hook: tc, or XDP
 * where SIXPN_XDP is defined. Every stage is the same for both.
 */
#ifndef SIXPN_CTX_H
#define SIXPN_CTX_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ipv6.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

#define L3 ETH_HLEN
#define L4 (ETH_HLEN + 40) /* where it is without extension headers */

/* Enough of a frame for every check of the hot path: L2, L3 and a TCP header. */
#define LINEAR (L4 + 20)

#define CHECKSUM_NONE 0
#define CHECKSUM_UNNECESSARY 1
#define CHECKSUM_COMPLETE 2
#define CHECKSUM_PARTIAL 3
#define CHECKSUM_INNER 4 /* partial, but of a packet inside this one: a tunnel between Machines */

/* An address under fdaa::/16 when prefix is 0xfdaa; else only prefix means something. */
struct address {
	__u32 network;
	__u32 host;
	__u32 machine;
	__u16 low;
	__u16 prefix;
};

enum fragment { FRAGMENT_NONE = 0, FRAGMENT_FIRST, FRAGMENT_LATER };

/* What kind of program a packet met; each is compiled for its own. */
enum entry {
	ENTRY_PORT = 0, /* a Machine's device, or the host port */
	ENTRY_MESH,     /* the device without link layer that leads to other hosts */
	ENTRY_UPLINK,   /* the host's own device that does */
	ENTRY_DRIVER,   /* the same, XDP in its driver */
	ENTRY_GENERIC,  /* the same, XDP after the kernel has made a packet of its own of the frame */
};

/* By which rule a packet goes on: what the final check asks for depends on it. */
enum way {
	PATH_PLAIN = 0,
	PATH_FORWARD, /* from a client to a backend, by an exact flow entry */
	PATH_REPLY,   /* back, by an exact flow entry */
	PATH_HOST,    /* into the private namespace */
	PATH_FABRIC,  /* an error of a router between hosts, in the agent's name */
	PATH_ALLOCATED, /* to or from a backend of another network, whose client is on another host */
};

/* What the stages know of a packet. Ports, lengths and addresses in host byte order. */
struct packet {
	struct address source; /* as it arrived */
	struct address destination;
	struct address new_source; /* as it leaves */
	struct address new_destination;
	__u32 length; /* of the frame */
	__u32 ifindex;
	__u32 difference; /* of the sums of the new addresses and the old, modulo 0xffff */
	__u16 payload; /* of the IPv6 header's payload length */
	__u16 l4;      /* offset of the transport header */
	__u16 source_port;
	__u16 destination_port;
	__u16 new_source_port;
	__u16 new_destination_port;
	__u8 protocol; /* after extension headers */
	__u8 tcp_flags;
	__u8 tcp_length; /* of the TCP header, bytes */
	__u8 icmp_type;
	__u8 fragment; /* enum fragment */
	__u8 checksum; /* CHECKSUM_* */
	__u8 path;     /* enum way */
	__u8 flags;    /* FLOW_* of the entry it matched */
	__u8 hop_limit;
	__u8 quoted;   /* protocol of the packet that an ICMPv6 error is about */
	__u16 checksum_start; /* frame offsets, if it is PARTIAL or INNER */
	__u16 checksum_field;
	__u16 mtu; /* what a Packet Too Big will say */
};

#ifndef SIXPN_XDP

#define VERDICT_NEXT -1    /* TCX_NEXT */
#define VERDICT_DROP 2     /* TCX_DROP */
#define VERDICT_REDIRECT 7 /* TCX_REDIRECT */

typedef struct __sk_buff context;

/* The part of the kernel's sk_buff that __sk_buff does not show. */
struct sk_buff {
	__u8 ip_summed : 2;
	__u16 csum_start;
	__u16 csum_offset;
	unsigned char *head;
	unsigned char *data;
	unsigned int end;
} __attribute__((preserve_access_index));

struct skb_shared_info {
	unsigned int gso_type;
} __attribute__((preserve_access_index));

#define GSO_FRAGLIST (1 << 18)

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

/* 1 for a list of packets with headers of their own, of which a program sees the first only. */
static __noinline int is_list(context *ctx)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(ctx);
	struct skb_shared_info *info = (void *)(kernel->head + kernel->end);
	unsigned int type = 0;

	return bpf_probe_read_kernel(&type, sizeof(type), &info->gso_type) || type & GSO_FRAGLIST;
}

/* Makes the first `bytes` of the frame readable through data pointers, or all of a shorter one. */
static __always_inline void linearize(context *ctx, __u32 bytes)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	/* A short frame is readable as a whole already. */
	if (data + bytes > end && end - data < ctx->len)
		bpf_skb_pull_data(ctx, bytes < ctx->len ? bytes : ctx->len);
}

/* The state of the transport checksum, and where the kernel would complete it: frame offsets. */
static __always_inline __u8 checksum_state(context *ctx, __u32 *start, __u32 *field)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(ctx);
	__u8 state = BPF_CORE_READ_BITFIELD(kernel, ip_summed);

	if (state == CHECKSUM_PARTIAL) {
		*start = kernel->csum_start - (__u32)(kernel->data - kernel->head);
		*field = *start + kernel->csum_offset;
	}
	return state;
}

static __always_inline int load_bytes(context *ctx, __u32 offset, void *to, __u32 size)
{
	return bpf_skb_load_bytes(ctx, offset, to, size);
}

static __always_inline int store_bytes(context *ctx, __u32 offset, const void *from, __u32 size)
{
	return bpf_skb_store_bytes(ctx, offset, from, size, 0);
}

static __always_inline __u32 frame_length(context *ctx)
{
	return ctx->len;
}

static __always_inline __u32 frame_ifindex(context *ctx)
{
	return ctx->ifindex;
}

/* Payload of the packets that the frame will be cut into; 0: it is one packet. */
static __always_inline __u32 segment_size(context *ctx)
{
	return ctx->gso_size;
}

static __always_inline __u32 segment_count(context *ctx)
{
	return ctx->gso_segs;
}

/* 1 for a VLAN tag beside the frame; one inside it shows as the frame's type. */
static __always_inline int is_tagged(context *ctx)
{
	return !!ctx->vlan_present;
}

static __always_inline int is_ipv6(context *ctx)
{
	return ctx->protocol == bpf_htons(ETH_P_IPV6);
}

/* Tells the kernel that the sum of the whole frame has changed. */
static __always_inline void sum_changed(context *ctx, __be16 difference)
{
	bpf_csum_update(ctx, difference);
}

#else

#define VERDICT_DROP XDP_DROP
#define VERDICT_REDIRECT XDP_REDIRECT

typedef struct xdp_md context;

/* A frame is in one piece, as it was on the wire, its checksums complete. */

static __always_inline int is_list(context *ctx)
{
	return 0;
}

static __always_inline void linearize(context *ctx, __u32 bytes)
{
}

static __always_inline __u8 checksum_state(context *ctx, __u32 *start, __u32 *field)
{
	return CHECKSUM_NONE;
}

static __always_inline int load_bytes(context *ctx, __u32 offset, void *to, __u32 size)
{
	return bpf_xdp_load_bytes(ctx, offset, to, size);
}

static __always_inline int store_bytes(context *ctx, __u32 offset, const void *from, __u32 size)
{
	return bpf_xdp_store_bytes(ctx, offset, (void *)from, size);
}

static __always_inline __u32 frame_length(context *ctx)
{
	return bpf_xdp_get_buff_len(ctx);
}

static __always_inline __u32 frame_ifindex(context *ctx)
{
	return ctx->ingress_ifindex;
}

static __always_inline __u32 segment_size(context *ctx)
{
	return 0;
}

static __always_inline __u32 segment_count(context *ctx)
{
	return 0;
}

static __always_inline int is_tagged(context *ctx)
{
	return 0;
}

static __always_inline int is_ipv6(context *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	return (void *)(ethernet + 1) <= (void *)(long)ctx->data_end && ethernet->h_proto == bpf_htons(ETH_P_IPV6);
}

static __always_inline void sum_changed(context *ctx, __be16 difference)
{
}

#endif

#endif
