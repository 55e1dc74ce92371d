package loader

import (
	"slices"

	"github.com/vishvananda/netlink"
)

// XDP says how the XDP program runs on an uplink.
type XDP uint8

// Without an XDP program the tcx program does everything.
const (
	XDPNone XDP = iota
	XDPGeneric
	XDPDriver
)

func (x XDP) String() string {
	switch x {
	case XDPGeneric:
		return "generic"
	case XDPDriver:
		return "driver"
	default:
		return "none"
	}
}

// AttachUplink puts the programs for a fabric between hosts on a device of the host's
// own, and pins their links. The device is not prepared, raised or closed: all that has
// no address under fdaa::/16 goes to the host as before.
func (l *Loader) AttachUplink(ifindex uint32) (XDP, error) {
	return XDPNone, l.withDevice(ifindex, "attach the router to", func(device netlink.Link) error { return l.attach(device, uplinkName) })
}

// Uplinks are the ifindexes that carry our programs for a fabric, in order: also those
// of an earlier run, which the caller detaches if it does not want them.
func (l *Loader) Uplinks() []uint32 {
	return slices.DeleteFunc(l.Devices(), func(ifindex uint32) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.kinds[ifindex] != uplinkName
	})
}
