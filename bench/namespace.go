package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// namespace is an unnamed network namespace. The kernel frees it, and every device
// in it, when the process ends however it ends: nothing is left to clean up.
type namespace struct {
	handle netns.NsHandle
	*netlink.Handle
}

func newNamespace() (*namespace, error) {
	var n *namespace
	err := elsewhere(func() error {
		handle, err := netns.New()
		if err != nil {
			return fmt.Errorf("make a network namespace (root is needed): %w", err)
		}
		links, err := netlink.NewHandle()
		if err != nil {
			return fmt.Errorf("netlink in a new namespace: %w", err)
		}
		n = &namespace{handle, links}
		return nil
	})
	if err != nil {
		return nil, err
	}
	lo, err := n.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	return n, n.LinkSetUp(lo)
}

// elsewhere runs fn, which may change the namespace of its thread, and goes back. A
// thread that cannot go back stays locked, so that it ends with its goroutine.
func elsewhere(fn func() error) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open this thread's network namespace: %w", err)
	}
	defer before.Close()
	failed := fn()
	if err := netns.Set(before); err != nil {
		return errors.Join(failed, fmt.Errorf("go back to the network namespace: %w", err))
	}
	runtime.UnlockOSThread()
	return failed
}

// do runs fn on a thread inside the namespace. Sockets that it makes stay there.
func (n *namespace) do(fn func() error) error {
	return elsewhere(func() error {
		if err := netns.Set(n.handle); err != nil {
			return err
		}
		return fn()
	})
}

func (n *namespace) close() {
	n.Close()
	n.handle.Close()
}

// sysctl writes a file of /proc/sys/net, e.g. "ipv6/conf/all/forwarding".
func (n *namespace) sysctl(name, value string) error {
	return n.do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644)
	})
}

// wire joins two namespaces by a veth pair; both ends are down, IPv6 is off on the first.
func wire(a *namespace, aName string, b *namespace, bName string) (aLink, bLink netlink.Link, err error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = aName, mtu
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: bName, PeerNamespace: netlink.NsFd(int(b.handle)), PeerMTU: mtu}
	if err := a.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("make veth pair %s, %s: %w", aName, bName, err)
	}
	if aLink, err = a.LinkByName(aName); err != nil {
		return nil, nil, err
	}
	if bLink, err = b.LinkByName(bName); err != nil {
		return nil, nil, err
	}
	return aLink, bLink, nil
}

// address gives a device an address that is usable at once, and raises it.
func (n *namespace) address(link netlink.Link, prefix netip.Prefix) error {
	address := &netlink.Addr{IPNet: ipNet(prefix), Flags: 0x02 /* IFA_F_NODAD */}
	if err := n.AddrAdd(link, address); err != nil {
		return fmt.Errorf("add %s: %w", prefix, err)
	}
	return n.LinkSetUp(link)
}

// route sends a prefix to a device, by way of a gateway or, without one, directly.
func (n *namespace) route(link netlink.Link, prefix netip.Prefix, gateway netip.Addr) error {
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(prefix)}
	if gateway.IsValid() {
		route.Gw = gateway.AsSlice()
	}
	if err := n.RouteAdd(route); err != nil {
		return fmt.Errorf("route %s: %w", prefix, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 128)}
}
