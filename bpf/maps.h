/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* maps.h is every table of the router: what is in it and who writes it. */
#ifndef SIXPN_MAPS_H
#define SIXPN_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

#define MAX_PORTS 8192
#define NETWORK_BUDGETS 1024
#define MAX_VIPS 65536
#define MAX_SERVICES 65536
#define MAX_ALLOCATIONS 65536
#define MAX_BACKENDS 131072
#define MAX_MAGLEV (4 << 20)
#define MAX_FLOWS (1 << 18)
#define MAX_FENCES 65536

/* The devices of the router, by ifindex. Written by Go before the device is raised. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct port);
} port_slots SEC(".maps");

/* The Machines and peers of this host, by network and machine. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct machine);
} machine_slots SEC(".maps");

/* The device into the private namespace. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct host_device);
} host_port SEC(".maps");

/* The device that leads to all other hosts. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct host_device);
} mesh_device SEC(".maps");

/* Packets and bytes of a port; Go hands out the indices. Written here. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct counters);
} port_counters SEC(".maps");

/* Drops by reason since the map was made. Written here. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

/* Drops by port and reason, only of pairs that happened. Written here, pruned by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PORTS * 8);
	__type(key, struct port_drop_key);
	__type(value, __u64);
} port_drops SEC(".maps");

/* Sampled drops, struct drop_event. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bucket);
} event_budget SEC(".maps");

/* ICMPv6 errors that a port's sender may still cause, by its index in `port_counters`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct bucket);
} error_budget SEC(".maps");

/*
 * The same for ports that many networks come in by, by the sender's network modulo the
 * size: numbers of networks follow each other, so neighbours never share one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NETWORK_BUDGETS);
	__type(key, __u32);
	__type(value, struct bucket);
} network_error_budget SEC(".maps");

/* Flycast addresses that exist. The value says nothing yet. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__type(key, struct vip_key);
	__type(value, __u32);
} vips SEC(".maps");

/*
 * What clients on other hosts may reach here across networks; a client on this host
 * has a flow entry instead. The value says nothing yet. Written by Go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ALLOCATIONS);
	__type(key, struct allocation_key);
	__type(value, __u32);
} allocations SEC(".maps");

/* Services of single ports. Written by Go, after its region and backends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

/* Services of port ranges; read when `services` misses, and only for new flows. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_SERVICES);
	__type(key, struct service_range_key);
	__type(value, struct service);
} service_ranges SEC(".maps");

/* Maglev regions one after the other: indices into `backends`, 0 is none. Written by Go, through mmap. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_MAGLEV);
	__type(key, __u32);
	__type(value, __u32);
} maglev SEC(".maps");

/* Written by Go; an element is given to another backend only when it has no live flow. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* Live flows by backend. Written here; Go resets an element before its backend. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct load);
} backend_load SEC(".maps");

/* Shares of limits by backend. Written by Go, through mmap; a zero element is no share. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct share);
} shares SEC(".maps");

/* Indices of backends of which a share is wanted at once, one for each time that `wanted` was clear. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 12);
} wants SEC(".maps");

/* Whose flows get no further, and to which backend. The value says nothing yet. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FENCES);
	__type(key, struct fence_key);
	__type(value, __u32);
} fences SEC(".maps");

/* Whether there is any fence: nearly always there is none, and nobody looks. Written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} fenced SEC(".maps");

/* One entry a Flycast flow, on the client's host. Written and expired here. The layout is fixed for good. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Live flows of a Machine and of a network, with their limits. Go makes and removes elements, counts are written here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PORTS * 2);
	__type(key, struct machine_key);
	__type(value, struct quota);
} quotas SEC(".maps");

/* TCP flows whose client must be told that its backend is gone, struct reset_event. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} resets SEC(".maps");

/* Keys of `flows` to judge. Written by Go, through mmap, before each run of the expiry program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, EXPIRY_KEYS);
	__type(key, __u32);
	__type(value, struct flow_key);
} expiry_keys SEC(".maps");

/* Timeouts in, sums out, of expiry. Timeouts written by Go. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct expiry_pass);
} expiry SEC(".maps");

#endif
