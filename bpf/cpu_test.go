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

// usableCPUs lists the CPUs that this process may run on.
func usableCPUs() (cpus []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// pin keeps the calling goroutine on one CPU until the test ends.
func pin(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	cpus, err := usableCPUs()
	must(t, err)
	var before, one unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &before))
	one.Set(cpus[0])
	must(t, unix.SchedSetaffinity(0, &one))
	t.Cleanup(func() {
		must(t, unix.SchedSetaffinity(0, &before))
		runtime.UnlockOSThread()
	})
}
