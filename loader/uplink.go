package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

const xdpDir = "xdp"

// XDP says how the XDP program runs on an uplink.
type XDP uint8

// Without an XDP program the tcx program does everything.
const (
	XDPNone    XDP = iota
	XDPGeneric     // the driver refuses: no faster than without
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

// modes are the ways to attach, the best first.
var modes = []struct {
	xdp     XDP
	program string
	flags   link.XDPAttachFlags
}{
	{XDPDriver, driverName, link.XDPDriverMode},
	{XDPGeneric, genericName, link.XDPGenericMode},
}

// AttachUplink puts the programs for a fabric between hosts on a device of the host's
// own, and pins their links. The device is not prepared, raised or closed: all that has
// no address under fdaa::/16 goes to the host as before. It refuses a device with an XDP
// program that is not this agent's (ErrForeign), and says how its own runs.
func (l *Loader) AttachUplink(ifindex uint32) (xdp XDP, err error) {
	err = l.withDevice(ifindex, "attach the router to", func(device netlink.Link) error {
		if _, _, err := l.ownXDP(device); err != nil {
			return err
		}
		// First: XDP leaves to it what it cannot do itself.
		if err := l.attach(device, uplinkName); err != nil {
			return err
		}
		xdp, err = l.attachXDP(device)
		return err
	})
	return xdp, err
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

func (l *Loader) xdpPin(ifindex uint32) string {
	return filepath.Join(l.config.PinRoot, xdpDir, strconv.FormatUint(uint64(ifindex), 10))
}

// ownXDP is the XDP program of ours on a device, 0 if there is none, and its name.
func (l *Loader) ownXDP(device netlink.Link) (id ebpf.ProgramID, name string, err error) {
	xdp := device.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return 0, "", nil
	}
	id = ebpf.ProgramID(xdp.ProgId)
	agent, name, err := owner(id)
	if err != nil {
		return 0, "", err
	}
	if agent != l.config.Name {
		return 0, "", fmt.Errorf("%w: %s carries XDP program %d (agent %q), and a device takes one: take it off (ip link set dev %s xdp off), or use another uplink",
			ErrForeign, device.Attrs().Name, id, agent, device.Attrs().Name)
	}
	return id, name, nil
}

// xdpLink finds the link of an XDP program on a device, pinned or not.
func xdpLink(ifindex uint32, program ebpf.ProgramID) (link.Link, error) {
	var all link.Iterator
	defer all.Close()
	for all.Next() {
		info, err := all.Link.Info()
		if err != nil || info.XDP() == nil {
			continue // of a kind that this library does not know, or gone
		}
		if info.XDP().Ifindex == ifindex && info.Program == program {
			return all.Take(), nil
		}
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return nil, fmt.Errorf("XDP program %d is on device %d without a link: expected one of this agent's", program, ifindex)
}

// attachXDP attaches the best that the device takes, or goes on with what it has.
func (l *Loader) attachXDP(device netlink.Link) (XDP, error) {
	ifindex := uint32(device.Attrs().Index)
	id, name, err := l.ownXDP(device)
	if err != nil {
		return XDPNone, err
	}
	if id == 0 {
		l.forgetXDP(ifindex) // somebody may have taken it off
	}
	if l.xdp[ifindex] == nil && id != 0 {
		x, err := xdpLink(ifindex, id)
		if err != nil {
			return XDPNone, err
		}
		l.xdp[ifindex], l.modes[ifindex] = x, name
	}
	var refused []error
	for i := 0; i < len(modes) && l.xdp[ifindex] == nil; i++ {
		x, err := link.AttachXDP(link.XDPOptions{Program: l.programs[modes[i].program], Interface: int(ifindex), Flags: modes[i].flags})
		if err != nil {
			refused = append(refused, fmt.Errorf("%s: %w", modes[i].xdp, err))
			continue
		}
		l.xdp[ifindex], l.modes[ifindex] = x, modes[i].program
	}
	if len(refused) > 0 {
		l.config.Log.Warn("the uplink refuses XDP", "device", device.Attrs().Name, "error", errors.Join(refused...))
	}
	if l.xdp[ifindex] == nil {
		return XDPNone, nil
	}
	if err := l.config.step("xdp attached"); err != nil {
		return XDPNone, err
	}
	if err := pinLink(l.xdpPin(ifindex), l.xdp[ifindex]); err != nil {
		return XDPNone, err
	}
	for _, mode := range modes {
		if mode.program == l.modes[ifindex] {
			return mode.xdp, l.updateLinks()
		}
	}
	return XDPNone, fmt.Errorf("the XDP program is called %q: expected %v", l.modes[ifindex], onXDP)
}

// detachXDP takes our XDP program off a device; found says whether there was one.
func (l *Loader) detachXDP(device netlink.Link) (found bool, err error) {
	id, _, err := l.ownXDP(device)
	if errors.Is(err, ErrForeign) || id == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	x, err := xdpLink(uint32(device.Attrs().Index), id)
	if err != nil {
		return false, err
	}
	defer func() { _ = x.Close() }()
	if err := x.(interface{ Detach() error }).Detach(); err != nil && !isNoDevice(err) {
		return false, fmt.Errorf("detach XDP of %s: %w", device.Attrs().Name, err)
	}
	return true, l.config.step("xdp detached")
}

// forgetXDP drops a link that is detached, or whose device is gone, and its pin.
func (l *Loader) forgetXDP(ifindex uint32) {
	if err := os.Remove(l.xdpPin(ifindex)); err != nil && !errors.Is(err, os.ErrNotExist) {
		l.config.Log.Warn("cannot remove the pin of an uplink", "error", err)
	}
	if x := l.xdp[ifindex]; x != nil {
		_ = x.Close()
		delete(l.xdp, ifindex)
		delete(l.modes, ifindex)
	}
}

// adoptXDP opens every pinned XDP link. One whose device is gone, or in another
// namespace, where it is without the tcx program too, is left alone or removed.
func (l *Loader) adoptXDP() error {
	dir := filepath.Join(l.config.PinRoot, xdpDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pinned links: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		pinned, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("open %s: %w; remove it if it is no pin of sixpn", path, err)
		}
		info, err := pinned.Info()
		if err != nil || info.XDP() == nil {
			_ = pinned.Close()
			return fmt.Errorf("read %s (expected an XDP link): %w", path, err)
		}
		ifindex := info.XDP().Ifindex
		here := false
		if err := l.in(func() error {
			device, err := netlink.LinkByIndex(int(ifindex))
			if err == nil {
				xdp := device.Attrs().Xdp
				here = xdp != nil && xdp.Attached && ebpf.ProgramID(xdp.ProgId) == info.Program
			}
			return nil
		}); err != nil {
			_ = pinned.Close()
			return err
		}
		if !here || l.xdp[ifindex] != nil {
			if ifindex == 0 {
				_ = pinned.Unpin()
			}
			_ = pinned.Close()
			continue
		}
		l.xdp[ifindex] = pinned
		if l.modes[ifindex], err = modeOf(pinned); err != nil {
			return err
		}
	}
	return nil
}

// modeOf is the name of the program on an XDP link.
func modeOf(x link.Link) (string, error) {
	program, err := programOn(x)
	if err != nil {
		return "", err
	}
	defer func() { _ = program.Close() }()
	return nameOf(program)
}
