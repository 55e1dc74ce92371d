// Package inherited is for the processes that outlive the agent which started them.
package inherited

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Close closes what whoever started the agent had left open and did not mean for
// anybody: it would stay open as long as this process runs, and in what it starts.
// Descriptors up to last are meant for it. It is to be called before others are opened
// by anything but Go, which opens nothing that a child would inherit.
func Close(last int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= last {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}
