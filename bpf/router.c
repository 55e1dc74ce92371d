// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//go:build ignore

/*
 * router.c is the way of a packet, top to bottom: parse, admit, resolve, leave.
 * Every stage returns a drop reason, DROP_NONE to go on; one exit makes it a
 * count, an event, an answer and a verdict. Nothing is ever passed to the host.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"
#include "maps.h"
#include "ctx.h"
#include "parse.h"
#include "admit.h"
#include "resolve.h"
#include "leave.h"
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

/* `mesh` is known when it is compiled: what only one of the two programs needs costs the other nothing. */
static __always_inline int stages(struct __sk_buff *skb, struct packet *packet, struct port *port, int mesh,
				  int *verdict)
{
	int reason = mesh ? mesh_frame(skb) : DROP_NONE;

	if (reason)
		return reason;
	reason = parse(skb, packet);
	if (reason)
		return reason;
	if (!port)
		return DROP_UNKNOWN_PORT;
	reason = mesh ? admit_mesh(packet, port) : admit(skb, packet, port);
	if (reason)
		return reason;
	reason = resolve(skb, packet, port, mesh);
	if (reason)
		return reason;
	return leave(skb, packet, port, mesh, verdict);
}

static __always_inline int route(struct __sk_buff *skb, int mesh)
{
	struct packet packet = {};
	__u32 ifindex = skb->ifindex;
	struct port *port = find_port(ifindex);
	int verdict = VERDICT_DROP, reason;

	packet.ifindex = ifindex;
	reason = stages(skb, &packet, port, mesh, &verdict);
	if (!reason)
		return verdict;
	if (reason < DROP_REASONS)
		count_drop(skb, reason, port);
	if (port && answer(skb, &packet, port, reason) && (!mesh || !rotate_frame(skb)))
		return bpf_redirect(ifindex, 0);
	if (reason > DROP_REASONS)
		count_drop(skb, DROP_INTERNAL, port);
	return VERDICT_DROP;
}

/* Machine ports and the host port. */
SEC("tc")
int sixpn_router(struct __sk_buff *skb)
{
	return route(skb, 0);
}

/* The mesh: its device has no link layer, its packets no Ethernet header. */
SEC("tc")
int sixpn_mesh(struct __sk_buff *skb)
{
	return route(skb, 1);
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
