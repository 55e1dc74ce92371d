/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * checksum.h is Internet checksum arithmetic (RFC 1071, RFC 1624) on 16-bit words
 * in host byte order. Sums are 32 bits wide and folded last.
 */
#ifndef SIXPN_CHECKSUM_H
#define SIXPN_CHECKSUM_H

#include "ctx.h"

/* Any multiple of 0xffff is zero in one's complement: lets a difference stay positive. */
#define CHECKSUM_ZERO (16 * 0xffffU)

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u32 sum32(__u32 word)
{
	return (word >> 16) + (word & 0xffff);
}

static __always_inline __u32 address_sum(const struct address *address)
{
	return sum32(address->network) + sum32(address->host) + sum32(address->machine) + address->low +
	       address->prefix;
}

/* Not inlined: with both pairs of a rewrite at once the compiler runs out of registers and then of stack. */
static __noinline __u32 pair_sum(const struct address *source, const struct address *destination)
{
	return address_sum(source) + address_sum(destination);
}

/* What a change of one address adds to a sum. */
static __always_inline __u32 address_change(const struct address *from, const struct address *to)
{
	return CHECKSUM_ZERO - address_sum(from) + address_sum(to);
}

/* A checksum field (host byte order) after the words under it changed by `difference`. */
static __always_inline __u16 checksum_adjust(__u16 field, __u32 difference)
{
	return ~fold((__u64)(__u16)~field + difference);
}

/* Of the pseudo header, RFC 8200, 8.1. */
static __always_inline __u32 pseudo_sum(const struct address *source, const struct address *destination, __u32 length,
					__u8 protocol)
{
	return pair_sum(source, destination) + sum32(length) + protocol;
}

/* Of `bytes` of the frame from `offset` on, folded. */
__noinline int frame_sum(context *ctx, __u32 offset, __u32 bytes)
{
	__u64 sum = 0;

	for (int i = 0; i < 40 && bytes; i++) {
		__u64 chunk[4] = {};
		__u32 size = bytes < sizeof(chunk) ? bytes : sizeof(chunk);

		if (size < 1 || size > sizeof(chunk) || load_bytes(ctx, offset, chunk, size))
			break;
		/* 32 bits at a time: the sum of 16-bit words does not care (RFC 1071, 2). */
		for (int j = 0; j < 4; j++)
			sum += (chunk[j] >> 32) + (chunk[j] & 0xffffffff);
		offset += size;
		bytes -= size;
	}
	return bpf_ntohs(fold(sum));
}

#endif
