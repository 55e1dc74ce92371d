package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -go-package bpf -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3" Uplink uplink.c -- -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -go-package bpf -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type uplink_frame MeasureUplink measure_uplink.c -- -I/usr/include/x86_64-linux-gnu
