package netns

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Feature is an offload of a device, by the number of the request that sets it
// (linux/ethtool.h).
type Feature uint32

const (
	RxChecksum Feature = 0x15
	TxChecksum Feature = 0x17 // all that is segmented late goes with it
	TSO        Feature = 0x1f
	GSO        Feature = 0x24
	GRO        Feature = 0x2c // of a veth also the queue that takes frames from XDP
)

// SetFeature switches an offload of a device in this thread's namespace.
func SetFeature(device string, feature Feature, on bool) error {
	words := []uint32{uint32(feature), 0}
	if on {
		words[1] = 1
	}
	return Ethtool(device, words)
}

// Ethtool makes a request about a device in this thread's namespace. words are the
// structure that the request takes, its number first, and hold the answer afterwards.
func Ethtool(device string, words []uint32) error {
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&words[0])}
	if len(device) >= len(request.name) {
		return fmt.Errorf("a device's name has at most %d bytes, %q has more", len(request.name)-1, device)
	}
	copy(request.name[:], device)
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("ethtool request %#x to %s: %w", words[0], device, errno)
	}
	return nil
}
