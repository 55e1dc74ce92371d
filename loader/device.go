package loader

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/netns"
)

func isNoDevice(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOLINK) || errors.As(err, &netlink.LinkNotFoundError{})
}

func deviceOf(ifindex uint32) (netlink.Link, error) {
	device, err := netlink.LinkByIndex(int(ifindex))
	if err != nil {
		return nil, fmt.Errorf("find device %d: %w", ifindex, err)
	}
	return device, nil
}

// withDevice does one thing with a device, in the namespace that has it. verb is
// what an error says was tried.
func (l *Loader) withDevice(ifindex uint32, verb string, do func(netlink.Link) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetGone()
	return l.in(func() error {
		device, err := deviceOf(ifindex)
		if err != nil {
			return err
		}
		if err := do(device); err != nil {
			return fmt.Errorf("%s device %s: %w", verb, device.Attrs().Name, err)
		}
		return nil
	})
}

// Prepare closes a device before it becomes a port: the drop filter on, IPv6 and
// ARP off, no IPv4 address and no forwarding. The device is down afterwards, but
// one that carries our link already is left as it is: traffic goes on.
func (l *Loader) Prepare(ifindex uint32) error {
	return l.withDevice(ifindex, "prepare", l.prepare)
}

func (l *Loader) prepare(device netlink.Link) error {
	ifindex, name := uint32(device.Attrs().Index), device.Attrs().Name
	own, err := l.ownLink(ifindex)
	if err != nil {
		return err
	}
	if own.program == uplinkName {
		return errors.New("it is the uplink, and carries the host's own traffic: detach it first")
	}
	if l.links[ifindex] == nil {
		if err := netlink.LinkSetDown(device); err != nil {
			return fmt.Errorf("set it down: %w", err)
		}
	}
	if err := l.config.step("down"); err != nil {
		return err
	}
	if err := l.closeDevice(device); err != nil {
		return err
	}
	if err := l.config.step("filter"); err != nil {
		return err
	}
	for _, setting := range [][2]string{
		{"ipv6/conf/" + name + "/disable_ipv6", "1"},
		{"ipv4/conf/" + name + "/forwarding", "0"},
	} {
		// A kernel without one of the two protocols has nothing to switch off.
		err := os.WriteFile("/proc/sys/net/"+setting[0], []byte(setting[1]), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set sysctl net/%s to %s: %w", setting[0], setting[1], err)
		}
	}
	addresses, err := netns.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(device, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list its IPv4 addresses: %w", err)
	}
	for i := range addresses {
		if err := netlink.AddrDel(device, &addresses[i]); err != nil {
			return fmt.Errorf("remove its address %s: %w", addresses[i].IPNet, err)
		}
	}
	if device.Attrs().RawFlags&unix.IFF_NOARP == 0 {
		if err := netlink.LinkSetARPOff(device); err != nil {
			return fmt.Errorf("switch ARP off: %w", err)
		}
	}
	return l.config.step("prepared")
}

// ownLink is our link on a device; zero if it has none.
type ownLink struct {
	id      link.ID
	program string // its name in the C
}

// ownLink finds our link among the tcx programs of a device, pinned or not, and
// refuses a device with the router of another agent.
func (l *Loader) ownLink(ifindex uint32) (own ownLink, err error) {
	attached, err := attachedTo(ifindex)
	if err != nil {
		return own, err
	}
	for _, program := range attached {
		agent, name, err := owner(program.ID)
		if err != nil {
			return own, err
		}
		id, _ := program.LinkID()
		switch agent {
		case "":
		case l.config.Name:
			own.id, own.program = id, name
		default:
			return own, fmt.Errorf("%w: device %d carries the router of agent %q; one device has one agent: detach it there first",
				ErrForeign, ifindex, agent)
		}
	}
	return own, nil
}

// Attach puts the router on a prepared device, and pins the link. On a device that
// has our link it makes sure of the program and the pin. It does not raise it.
func (l *Loader) Attach(ifindex uint32) error {
	return l.withDevice(ifindex, "attach the router to", func(device netlink.Link) error { return l.attach(device, routerName) })
}

// AttachMesh is Attach for the device that leads to other hosts, which has no link
// layer and a program of its own.
func (l *Loader) AttachMesh(ifindex uint32) error {
	return l.withDevice(ifindex, "attach the router to", func(device netlink.Link) error { return l.attach(device, meshName) })
}

func (l *Loader) attach(device netlink.Link, name string) error {
	ifindex := uint32(device.Attrs().Index)
	filter, agent, err := filterOf(device)
	if err != nil {
		return err
	}
	switch closed := filter != nil && agent == l.config.Name; {
	case !closed && name != uplinkName:
		return errors.New("it has no drop filter of this agent: prepare it first")
	case closed && name == uplinkName:
		return errors.New("it is a port of this agent, whose drop filter would stop the host's own traffic: detach it first")
	}
	own, err := l.ownLink(ifindex)
	if err != nil {
		return err
	}
	if l.links[ifindex] == nil && own.id != 0 {
		// Attaching again would run two programs: go on with the one that is there.
		if l.links[ifindex], err = link.NewFromID(own.id); err != nil {
			delete(l.links, ifindex)
			return err
		}
	}
	if l.links[ifindex] == nil {
		x, err := link.AttachTCX(link.TCXOptions{
			Interface: int(ifindex), Program: l.programs[name], Attach: ebpf.AttachTCXIngress,
			Anchor: link.Head(), // nobody's program may let a packet past the router
		})
		if err != nil {
			return err
		}
		l.links[ifindex] = x
		if err := l.config.step("attached"); err != nil {
			return err
		}
	}
	l.kinds[ifindex] = name
	if err := pinLink(l.linkPin(ifindex), l.links[ifindex]); err != nil {
		return err
	}
	if err := l.config.step("pinned"); err != nil {
		return err
	}
	return l.updateLinks()
}

// Raise sets an attached device up.
func (l *Loader) Raise(ifindex uint32) error { return l.withDevice(ifindex, "raise", l.raise) }

func (l *Loader) raise(device netlink.Link) error {
	if l.links[uint32(device.Attrs().Index)] == nil {
		return errors.New("it has no router: attach it first")
	}
	if device.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(device); err != nil {
		return err
	}
	return l.config.step("raised")
}

// Detach takes the router off a device: down first, then the link, then the
// filter. It never raises it. The uplink, which is the host's, stays up. A device that is gone is no error, and may go at any
// moment: the end of a Machine's namespace takes its device along.
func (l *Loader) Detach(ifindex uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.in(func() error { return l.detach(ifindex) }); err != nil && !isNoDevice(err) {
		return err
	}
	if x := l.links[ifindex]; x != nil {
		_ = x.Close()
		delete(l.links, ifindex)
		delete(l.kinds, ifindex)
	}
	l.forgetXDP(ifindex)
	if err := os.Remove(l.linkPin(ifindex)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin the link of device %d: %w", ifindex, err)
	}
	return nil
}

func (l *Loader) detach(ifindex uint32) error {
	device, err := deviceOf(ifindex)
	if err != nil {
		return err
	}
	// First, or what XDP leaves to tcx would be the host's.
	if _, err := l.detachXDP(device); err != nil {
		return err
	}
	own, err := l.ownLink(ifindex)
	if err != nil {
		return err
	}
	filter, agent, err := filterOf(device)
	if err != nil {
		return err
	}
	if own.id == 0 && (filter == nil || agent != l.config.Name) {
		return nil // nothing of ours is on it: it is not ours to set down
	}
	if err := closeDown(device, own, l.config.Name, l.config.step); err != nil {
		return fmt.Errorf("detach device %s: %w", device.Attrs().Name, err)
	}
	return nil
}

// closeDown is the order in which a device loses its router.
func closeDown(device netlink.Link, own ownLink, agent string, step func(string) error) error {
	if err := step("found"); err != nil {
		return err
	}
	if own.program == uplinkName {
		if err := detachLink(own.id); err != nil {
			return err
		}
		return step("detached")
	}
	if err := netlink.LinkSetDown(device); err != nil {
		return fmt.Errorf("set it down: %w", err)
	}
	if err := step("down"); err != nil {
		return err
	}
	if own.id != 0 {
		if err := detachLink(own.id); err != nil {
			return err
		}
	}
	if err := step("detached"); err != nil {
		return err
	}
	if err := removeFilter(device, agent); err != nil {
		return err
	}
	return step("filter removed")
}

func detachLink(id link.ID) error {
	x, err := link.NewFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = x.Close() }()
	if err := x.Detach(); err != nil && !isNoDevice(err) {
		return err
	}
	return nil
}
