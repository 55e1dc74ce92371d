package bpf_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

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
