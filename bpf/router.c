// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//go:build ignore

/*
 * router.c is the way of a packet, top to bottom: parse, admit, resolve, leave.
 * Every stage returns a drop reason, DROP_NONE to go on; one exit makes it a
 * count, an event, an answer and a verdict. Nothing is ever passed to the host, but
 * on its own uplink what has no address of ours.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"
#include "maps.h"
#include "ctx.h"
#include "parse.h"
#include "admit.h"
#include "resolve.h"
#include "fabric.h"
#include "leave.h"
#include "tun.h"
#include "answer.h"
#include "expire.h"

/* Types that no map names still reach Go. */
const enum drop_reason *export_drop_reason __attribute__((unused));
const enum port_kind *export_port_kind __attribute__((unused));
const enum load_port *export_load_port __attribute__((unused));
const enum redirect_method *export_redirect_method __attribute__((unused));
const enum service_action *export_service_action __attribute__((unused));
const enum flow_state *export_flow_state __attribute__((unused));
const struct drop_event *export_drop_event __attribute__((unused));
const struct expiry_request *export_expiry_request __attribute__((unused));
const struct reset_event *export_reset_event __attribute__((unused));

/* `entry` is known when it is compiled: what only one of the programs needs costs the others nothing. */
static __always_inline int stages(struct __sk_buff *skb, struct packet *packet, struct port *port, enum entry entry,
				  int *verdict)
{
	int mesh = entry != ENTRY_PORT, reason = DROP_NONE;

	if (entry == ENTRY_MESH)
		reason = mesh_frame(skb);
	else if (entry == ENTRY_UPLINK)
		reason = rotate_frame(skb);
	if (reason)
		return reason;
	reason = parse(skb, packet);
	if (reason)
		return reason;
	if (!port)
		return DROP_UNKNOWN_PORT;
	if (entry == ENTRY_UPLINK && is_fabric_error(packet)) {
		reason = resolve_fabric(skb, packet, port);
	} else {
		reason = mesh ? admit_mesh(packet, port, entry) : admit(skb, packet, port);
		if (!reason)
			reason = resolve(skb, packet, port, mesh);
	}
	if (reason)
		return reason;
	return leave(skb, packet, port, entry, verdict);
}

static __always_inline int route(struct __sk_buff *skb, enum entry entry)
{
	struct packet packet = {};
	__u32 ifindex = skb->ifindex;
	struct port *port = find_port(ifindex);
	int verdict = VERDICT_DROP, reason;

	packet.ifindex = ifindex;
	reason = stages(skb, &packet, port, entry, &verdict);
	if (!reason)
		return verdict;
	if (reason < DROP_REASONS)
		count_drop(skb, reason, port);
	if (port && answer(skb, &packet, port, reason) && (entry == ENTRY_PORT || !rotate_frame(skb)))
		return bpf_redirect(ifindex, 0);
	if (reason > DROP_REASONS)
		count_drop(skb, DROP_INTERNAL, port);
	return VERDICT_DROP;
}

/* Machine ports and the host port. */
SEC("tc")
int sixpn_router(struct __sk_buff *skb)
{
	return route(skb, ENTRY_PORT);
}

/* The mesh: its device has no link layer, its packets no Ethernet header. */
SEC("tc")
int sixpn_mesh(struct __sk_buff *skb)
{
	return route(skb, ENTRY_MESH);
}

/* The uplink, where a fabric routes between hosts. It carries the host's own traffic too. */
SEC("tc")
int sixpn_uplink(struct __sk_buff *skb)
{
	return is_ours(skb) ? route(skb, ENTRY_UPLINK) : VERDICT_NEXT;
}

/* What measurements are compared with: it does nothing, and drops. */
SEC("tc")
int sixpn_empty(struct __sk_buff *skb)
{
	return VERDICT_DROP;
}

/* Judges the first `count` flows that `expiry_keys` lists. */
SEC("syscall")
int sixpn_expire(struct expiry_request *request)
{
	__u32 count = request->count;

	bpf_loop(count < EXPIRY_KEYS ? count : EXPIRY_KEYS, expire_step, NULL, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
