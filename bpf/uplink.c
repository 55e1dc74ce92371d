// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//go:build ignore

/*
 * uplink.c is the short way of a packet from another host to a Machine: the stages of
 * router.c, before the kernel has made a packet of its own of the frame. It does what
 * most packets need. The rest it hands, as it came, to sixpn_uplink of router.c on the
 * same device, which can do all: answers, errors, the private namespace, segments that
 * were put together, devices that take no frames of XDP.
 */
#define SIXPN_XDP

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"
#include "maps.h"
#include "ctx.h"
#include "parse.h"
#include "admit.h"
#include "resolve.h"
#include "leave.h"

static __always_inline int stages(struct xdp_md *xdp, struct packet *packet, struct port *port, enum entry entry,
				  int *verdict)
{
	int reason = parse(xdp, packet);

	if (reason)
		return reason;
	if (is_error(packet))
		return HAND_OVER;
	if (!port)
		return DROP_UNKNOWN_PORT;
	reason = admit_mesh(packet, port, ENTRY_UPLINK);
	if (reason)
		return reason;
	reason = resolve(xdp, packet, port, 1);
	if (reason)
		return reason;
	return leave(xdp, packet, port, entry, verdict);
}

static __always_inline int arrive(struct xdp_md *xdp, enum entry entry)
{
	struct packet packet = {};
	struct port *port;
	int verdict = VERDICT_DROP, reason;

	if (!is_ours(xdp))
		return XDP_PASS;
	packet.ifindex = frame_ifindex(xdp);
	port = find_port(packet.ifindex);
	reason = rotate_frame(xdp);
	if (!reason)
		reason = stages(xdp, &packet, port, entry, &verdict);
	if (!reason)
		return verdict;
	/* Turned twice is as it came. */
	if (is_answered(reason))
		return rotate_frame(xdp) ? VERDICT_DROP : XDP_PASS;
	count_drop(xdp, reason, port);
	return VERDICT_DROP;
}

/* The uplink, in its driver. */
SEC("xdp")
int sixpn_xdp(struct xdp_md *xdp)
{
	return arrive(xdp, ENTRY_DRIVER);
}

/* The uplink, where the driver has no XDP. */
SEC("xdp")
int sixpn_generic(struct xdp_md *xdp)
{
	return arrive(xdp, ENTRY_GENERIC);
}

char _license[] SEC("license") = "Dual BSD/GPL";
