// Package bpf is the data plane: the C of the router, and what bpf2go makes of
// it. It holds the objects and the types that C and Go share, and nothing that
// talks to the kernel.
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -go-package bpf -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type drop_reason -type port_kind -type load_port -type redirect_method -type service_action -type flow_state -type port -type machine_key -type machine -type counters -type port_drop_key -type host_device -type vip_key -type allocation_key -type service_key -type service_range_key -type service -type backend -type flow_key -type flow -type quota -type load -type share -type fence_key -type drop_event -type reset_event -type bucket -type expiry_pass -type expiry_request Router router.c -- -I/usr/include/x86_64-linux-gnu
