package bpf_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// now is CLOCK_MONOTONIC, as last_seen has it, ns.
func now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return uint64(ts.Nano())
}

// pin keeps the calling goroutine on one CPU until the test ends.
func pin(t testing.TB, cpu int) {
	t.Helper()
	runtime.LockOSThread()
	var before, one unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &before))
	one.Set(cpu)
	must(t, unix.SchedSetaffinity(0, &one))
	t.Cleanup(func() {
		must(t, unix.SchedSetaffinity(0, &before))
		runtime.UnlockOSThread()
	})
}
