package machine

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest signal of Linux, and signalSet the bytes of the set of
// them all, which rt_sigaction(2) wants to hear.
const (
	lastSignal = 64
	signalSet  = lastSignal / 8
)

// signalAction is struct sigaction of the kernel: a handler first, then what differs
// from one architecture to the next, with room for the largest.
type signalAction struct {
	handler uintptr // 0 is the default, 1 is to ignore
	rest    [7]uint64
}

// unignoreSignals puts every signal that is ignored to its default. Whoever started
// the agent may have ignored some (nohup does), a process inherits that, and Go's
// runtime leaves the real-time signals alone.
func unignoreSignals() error {
	for number := uintptr(1); number <= lastSignal; number++ {
		var have, byDefault signalAction
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, number, 0, uintptr(unsafe.Pointer(&have)), signalSet, 0, 0); errno != 0 {
			return fmt.Errorf("read the action of signal %d: %w", number, os.NewSyscallError("rt_sigaction", errno))
		}
		if have.handler != 1 {
			continue
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, number, uintptr(unsafe.Pointer(&byDefault)), 0, signalSet, 0, 0); errno != 0 {
			return fmt.Errorf("set signal %d to its default: %w", number, os.NewSyscallError("rt_sigaction", errno))
		}
	}
	return nil
}
