/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * expire.h judges entries of `flows`: what is over goes, what lost its backend is
 * marked. Go pages the keys through, so that a pass is as slow as it likes; every
 * decision, and every count, is made here.
 */
#ifndef SIXPN_EXPIRE_H
#define SIXPN_EXPIRE_H

#include "flow.h"

static __always_inline __u64 flow_timeout(const struct expiry_pass *pass, __u32 status)
{
	switch (status) {
	case FLOW_SYN:
		return pass->timeout_syn;
	case FLOW_ESTABLISHED:
		return pass->timeout_established;
	case FLOW_UDP:
		return pass->timeout_udp;
	default:
		return pass->timeout_closing;
	}
}

/* 1 if the entry's backend no longer runs, or its element is another backend's now. */
static __always_inline int lost_backend(const struct flow *flow)
{
	__u32 index = flow->backend;
	struct backend *backend = bpf_map_lookup_elem(&backends, &index);

	return !backend || backend->flags & BACKEND_GONE || backend->generation != flow->backend_generation;
}

static __always_inline void announce_reset(const struct flow *flow)
{
	struct reset_event *event = bpf_ringbuf_reserve(&resets, sizeof(*event), 0);

	if (!event)
		return;
	event->network = flow->key.network;
	event->host = host;
	event->machine = flow->key.machine;
	event->vip = flow->vip;
	event->client_low = flow->client_low;
	event->client_port = flow->key.port;
	event->vip_port = flow->vip_port;
	event->pad = 0;
	bpf_ringbuf_submit(event, 0);
}

/* One step of bpf_loop over `expiry_keys`. */
static long expire_step(__u32 index, void *unused)
{
	struct flow_key *listed = bpf_map_lookup_elem(&expiry_keys, &index), key;
	__u32 zero = 0, status;
	struct expiry_pass *pass = bpf_map_lookup_elem(&expiry, &zero);
	struct flow *flow, copy;
	__s64 idle;
	__u64 now = bpf_ktime_get_ns(); /* the clock of last_seen; its coarse form is not for this program */

	if (!listed || !pass)
		return 1;
	key = *listed;
	flow = flow_find(&key, &copy);
	if (!flow)
		return 0;
	pass->seen++;
	status = flow_status(&copy);
	/* Another CPU may have renewed it after this one read the clock. */
	idle = (__s64)(now - copy.last_seen);
	/* Of a Machine that is gone nobody will close it; a moment without its row is no end. */
	if (idle > (__s64)flow_timeout(pass, status) ||
	    (idle > (__s64)pass->timeout_closing && !find_machine(key.network, key.machine))) {
		pass->expired += flow_delete(flow, &key, copy.state);
		return 0;
	}
	if (status != FLOW_GONE && lost_backend(&copy) &&
	    move_state(flow, copy.state, (copy.state & ~FLOW_STATE_MASK) | FLOW_GONE | FLOW_UNCOUNTED)) {
		pass->gone++;
		/* So that it shows when no flow of a backend that is gone passes any more. */
		if (!(copy.state & FLOW_UNCOUNTED))
			backend_give(copy.backend, copy.backend_generation);
		/* One that was closing has nobody to tell. */
		if (key.protocol == IPPROTO_TCP && status != FLOW_CLOSING)
			announce_reset(&copy);
	}
	return 0;
}

#endif
