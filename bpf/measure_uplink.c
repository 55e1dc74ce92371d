// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//go:build ignore

/*
 * measure_uplink.c is what benchmarks need beside XDP on the uplink: live frames are
 * recycled as the program left them, so this one puts the headers back first.
 */
#include "uplink.c"

#define LIVE_FRAME 64

struct uplink_frame {
	__u8 frame[LIVE_FRAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct uplink_frame);
} live_uplink SEC(".maps");

SEC("xdp")
int sixpn_live_xdp(struct xdp_md *xdp)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	__u32 zero = 0;
	struct uplink_frame *from = bpf_map_lookup_elem(&live_uplink, &zero);

	if (!from || data + LIVE_FRAME > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, from->frame, LIVE_FRAME);
	return arrive(xdp, ENTRY_DRIVER);
}
