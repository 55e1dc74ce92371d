package nettest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/netns"
)

// fabricV6 has a /64 for each link of a fabric: one address is the host's, one the router's.
var fabricV6 = netip.MustParsePrefix("2001:db8:52::/48")

// fabricAddress is the host's on the nth link.
func fabricAddress(n int) netip.Prefix {
	a := fabricV6.Addr().As16()
	a[7], a[15] = byte(n), 1
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// routerOf is the router's address on the link of a host.
func routerOf(host netip.Addr) netip.Prefix {
	a := host.As16()
	a[14], a[15] = 0xff, 0xff
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// NewFabric makes an underlay that is a router: each host is on a link of its own, and
// has a default route. The devices have an MTU, 1500 if it is 0.
func NewFabric(mtu int) (*Underlay, error) {
	setDefault(&mtu, 1500)
	namespace, err := newNamespace()
	if err != nil {
		return nil, err
	}
	u := &Underlay{namespace: namespace, mtu: mtu, router: true, absent: map[path]bool{}}
	err = namespace.Do(func() error {
		// As many errors as are due: what is tested is who gets them.
		return errors.Join(raiseLoopback(), set("conf/all/forwarding", "1"), set("icmp/ratelimit", "0"))
	})
	if err != nil {
		return nil, errors.Join(err, namespace.Close())
	}
	return u, nil
}

func set(setting, value string) error {
	return os.WriteFile("/proc/sys/net/ipv6/"+setting, []byte(value), 0)
}

// openPort makes the router's end of a link, in the thread's namespace.
func openPort(l *Link) error {
	device, err := netlink.LinkByName(l.port)
	if err != nil {
		return err
	}
	// What arrives at a host is as from a wire: with whole checksums.
	return errors.Join(netns.SetFeature(l.port, netns.TxChecksum, false), set("conf/"+l.port+"/accept_dad", "0"),
		addAddress(device, routerOf(l.V6)), netlink.LinkSetUp(device))
}

// enterFabric raises the host's end, in the thread's namespace.
func enterFabric(device netlink.Link, l *Link) error {
	if err := errors.Join(set("conf/"+Uplink+"/accept_dad", "0"), netlink.LinkSetUp(device)); err != nil {
		return err
	}
	all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	return netlink.RouteAdd(&netlink.Route{Dst: ipNet(all), Gw: routerOf(l.V6).Addr().AsSlice(), LinkIndex: device.Attrs().Index})
}

// lead has the router send what is for a prefix to a host.
func (l *Link) lead(prefix netip.Prefix) error {
	return l.underlay.namespace.Do(func() error {
		err := netlink.RouteReplace(&netlink.Route{Dst: ipNet(prefix), Gw: l.V6.AsSlice(), LinkIndex: l.ifindex})
		if err != nil {
			return fmt.Errorf("lead %v to %v: %w", prefix, l.V6, err)
		}
		return nil
	})
}

// Narrow gives both ends of the host's link another MTU: a router answers what is larger.
func (h *Host) Narrow(mtu int) error {
	return errors.Join(
		h.Uplink.underlay.namespace.Do(func() error { return setMTU(h.Uplink.port, mtu) }),
		h.namespace.Do(func() error { return setMTU(Uplink, mtu) }))
}

func setMTU(name string, mtu int) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetMTU(device, mtu)
}

// Forge puts an IPv6 packet on the host's link as the fabric's router would, whatever it
// says of its sender.
func (h *Host) Forge(packet []byte) error {
	var to, from net.HardwareAddr
	mac := func(name string, into *net.HardwareAddr) func() error {
		return func() error {
			device, err := net.InterfaceByName(name)
			if err == nil {
				*into = device.HardwareAddr
			}
			return err
		}
	}
	wire := h.Uplink.underlay.namespace
	if err := errors.Join(h.namespace.Do(mac(Uplink, &to)), wire.Do(mac(h.Uplink.port, &from))); err != nil {
		return err
	}
	frame := slices.Concat(to, from, binary.BigEndian.AppendUint16(nil, etherIPv6), packet)
	return wire.Do(func() error {
		socket, err := packetSocket(h.Uplink.port)
		if err != nil {
			return err
		}
		_, err = socket.Write(frame)
		return errors.Join(err, socket.Close())
	})
}

// UplinkRouted says whether an agent's router looks at what arrives by the uplink.
func (h *Host) UplinkRouted() (routed bool, err error) {
	err = h.namespace.Do(func() error {
		device, err := net.InterfaceByName(Uplink)
		if err != nil {
			return err
		}
		seen, err := loader.Look(uint32(device.Index))
		routed = seen.Router != ""
		return err
	})
	return routed, err
}

// Lead has the fabric route to the host what other hosts send to its Machines.
func (h *Host) Lead(ctx context.Context) error {
	status, err := h.Status(ctx)
	if err != nil {
		return err
	}
	prefix, err := netip.ParsePrefix(fmt.Sprintf("fdaa:%s::/48", status.Agent.Host))
	if err != nil {
		return fmt.Errorf("the prefix of host %s: %w", status.Agent.Host, err)
	}
	return h.Uplink.lead(prefix)
}

// HostRoutes are the host's routes to the Machines of other hosts.
func (h *Host) HostRoutes() (routes []netlink.Route, err error) {
	const table = 51821
	err = h.namespace.Do(func() error {
		routes, err = netns.Whole(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		})
		return err
	})
	return routes, err
}

// Limit has the fabric's router take packets of at most mtu bytes towards the host, though
// both ends of the link take more: as if a narrower one were farther on. It answers what is
// larger.
func (h *Host) Limit(mtu int) error {
	return h.Uplink.underlay.namespace.Do(func() error { return set("conf/"+h.Uplink.port+"/mtu", strconv.Itoa(mtu)) })
}

// PathMTU is what the host's kernel knows of the way to an address.
func (h *Host) PathMTU(to netip.Addr) (mtu int, err error) {
	err = h.namespace.Do(func() error {
		routes, err := netlink.RouteGet(to.AsSlice())
		if err == nil && len(routes) == 1 {
			mtu = routes[0].MTU
		}
		return err
	})
	return mtu, err
}
