// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"
#include "maps.h"

/* This host's number, set at load. */
volatile const __u32 host;

/* Types that no map names still reach Go. */
const enum drop_reason *export_drop_reason __attribute__((unused));
const enum port_kind *export_port_kind __attribute__((unused));
const enum redirect_method *export_redirect_method __attribute__((unused));
const enum service_action *export_service_action __attribute__((unused));
const enum flow_state *export_flow_state __attribute__((unused));
const struct drop_event *export_drop_event __attribute__((unused));
const struct reset_event *export_reset_event __attribute__((unused));

/* Every port but the wake port: a Machine's device, the host port. */
SEC("tc")
int sixpn_router(struct __sk_buff *skb)
{
	return 2 + (host & 0) ;
}

/* The empty program that measurements are compared with. */
SEC("tc")
int sixpn_empty(struct __sk_buff *skb)
{
	return 2;
}

/* One pass over `flows`: deletes what expired, marks what lost its backend. */
SEC("iter/bpf_map_elem")
int sixpn_expire(void *ctx)
{
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
