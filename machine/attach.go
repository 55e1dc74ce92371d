package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/state"
)

// lookAtDevice says what a device of the agent's namespace is like, if a Machine can
// be behind it. It changes nothing.
func lookAtDevice(id string, c state.Attach, mtu uint16) (Device, error) {
	link, err := netlink.LinkByName(c.Device)
	if notFound(err) {
		return Device{}, fmt.Errorf("there is no device %s in the agent's network namespace: make it first, then start the machine", c.Device)
	}
	if err != nil {
		return Device{}, fmt.Errorf("device %s: %w", c.Device, err)
	}
	a := link.Attrs()
	d := Device{Name: a.Name, Ifindex: uint32(a.Index), RouterMAC: a.HardwareAddr}
	switch kind := link.(type) {
	case *netlink.Tuntap:
		if kind.Mode != netlink.TUNTAP_MODE_TAP {
			return Device{}, fmt.Errorf("device %s is a tun, which has no Ethernet: make a tap (ip tuntap add dev %s mode tap)", a.Name, a.Name)
		}
	case *netlink.Veth:
		d.Peer = a.NetNsID >= 0 // the other end is in another namespace
	default:
		return Device{}, fmt.Errorf("device %s is of type %s, expected a tap or a veth", a.Name, link.Type())
	}
	if strings.HasPrefix(a.Alias, aliasPrefix) || a.Name == DeviceName(id) {
		return Device{}, fmt.Errorf("device %s has the name or the alias (%q) of sixpn's own devices: attach another", a.Name, a.Alias)
	}
	if a.MasterIndex != 0 {
		return Device{}, fmt.Errorf("device %s belongs to the device with index %d, such as a bridge: take it out first (ip link set %s nomaster)", a.Name, a.MasterIndex, a.Name)
	}
	addresses, err := netns.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return Device{}, fmt.Errorf("list the addresses of %s: %w", a.Name, err)
	}
	for _, address := range addresses {
		if address.IP.To4() != nil || !address.IP.IsLinkLocalUnicast() {
			return Device{}, fmt.Errorf("device %s has the address %s, so the host uses it itself: attach another, or remove its addresses first (ip addr flush dev %s)", a.Name, address.IPNet, a.Name)
		}
	}
	// Some hosts reach their containers by routes alone, over devices without addresses.
	if route, err := routeOver(link); err != nil {
		return Device{}, err
	} else if route != "" {
		return Device{}, fmt.Errorf("the host's route to %s leads over device %s, so the host uses it itself: attach another, or remove the route first (ip route flush dev %s)", route, a.Name, a.Name)
	}
	d.MTU = uint16(min(a.MTU, int(mtu)))
	if d.MTU < MinMTU {
		return Device{}, fmt.Errorf("device %s has the MTU %d, IPv6 needs %d: raise it first (ip link set %s mtu %d)", a.Name, a.MTU, MinMTU, a.Name, mtu)
	}
	if c.MAC != "" {
		if d.GuestMAC, err = net.ParseMAC(c.MAC); err != nil || len(d.GuestMAC) != 6 || d.GuestMAC[0]&1 != 0 {
			return Device{}, fmt.Errorf("the hardware address %q of the guest is malformed, expected six bytes such as 52:54:00:12:34:56", c.MAC)
		}
	}
	return d, nil
}

// routeOver is the destination of a route that leads over a device, "" if there is
// none but those that the kernel gives every device with IPv6.
func routeOver(link netlink.Link) (string, error) {
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}
	routes, err := netns.Whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return "", fmt.Errorf("list the routes over %s: %w", link.Attrs().Name, err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			return "everywhere", nil
		}
		if !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() || r.Dst.IP.To4() != nil {
			return r.Dst.String(), nil
		}
	}
	return "", nil
}

// openNetNS opens a network namespace by path or by a process in it.
func openNetNS(c state.Attach) (*os.File, error) {
	path := c.NetNS
	if c.Pid != 0 {
		path = "/proc/" + strconv.Itoa(c.Pid) + "/ns/net"
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && c.Pid != 0 {
		return nil, fmt.Errorf("there is no process %d: attach the namespace of one that runs, or by a path", c.Pid)
	}
	if err != nil {
		return nil, fmt.Errorf("open a network namespace: %w", err)
	}
	if err := checkNetNS(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func checkNetNS(f *os.File) error {
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return errors.New("it is no network namespace, expected a path such as /run/netns/NAME or /proc/PID/ns/net")
	}
	theirs, err := f.Stat()
	if err != nil {
		return err
	}
	ours, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	if os.SameFile(theirs, ours) {
		return errors.New("it is the agent's own network namespace: attach one of another process or container")
	}
	return nil
}

// maxRaces is how many names somebody else may take while they are tried.
const maxRaces = 8

// makeInNetNS makes a veth into a namespace that somebody else configures.
func makeInNetNS(ctx context.Context, namespace *os.File, c VethConfig) (Device, string, error) {
	var taken []string
	err := inNetNS(ctx, namespace, func() error {
		links, err := netns.Whole(netlink.LinkList)
		for _, link := range links {
			taken = append(taken, link.Attrs().Name)
		}
		return err
	})
	if err != nil {
		return Device{}, "", fmt.Errorf("list the devices of the namespace: %w", err)
	}
	for n := 0; ; n++ {
		if n > len(taken)+maxRaces {
			return Device{}, "", errors.New("no name eth0, eth1, … is free in the namespace")
		}
		c.PeerName = "eth" + strconv.Itoa(n)
		if slices.Contains(taken, c.PeerName) {
			continue
		}
		d, err := CreateVeth(ctx, namespace, c)
		if errors.Is(err, syscall.EEXIST) {
			continue // since the list was made
		}
		return d, c.PeerName, err
	}
}

// deviceGone returns a channel that is closed once a device of this namespace is no
// more, or was moved to another. It ends with ctx.
func (m *Manager) deviceGone(ctx context.Context, ifindex uint32) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		for ctx.Err() == nil {
			if isGone(ctx, int(ifindex)) {
				close(gone)
				return
			}
			pause(ctx, m.config.RetryInterval)
		}
	}()
	return gone
}

// isGone waits for the end of a device. It is false if ctx ended, or news were lost.
func isGone(ctx context.Context, ifindex int) bool {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return false
	}
	defer func() {
		close(done)
		go func() {
			for range updates { // lets its sender end
			}
		}()
	}()
	// Only now: what happened before the subscription is seen here.
	if _, err := netlink.LinkByIndex(ifindex); notFound(err) {
		return true
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case update, ok := <-updates:
			if !ok {
				return false
			}
			if update.Header.Type == unix.RTM_DELLINK && int(update.Index) == ifindex {
				return true
			}
		}
	}
}
