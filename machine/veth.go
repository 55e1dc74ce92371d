package machine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/netns"
)

// GuestDevice is the name of a Machine's network device inside.
const GuestDevice = "eth0"

// MTULimits are what a Machine's device may have: IPv6's least, and a jumbo
// frame's.
const (
	MinMTU     = 1280
	MaxMTU     = 9000
	DefaultMTU = 1420 // what a WireGuard mesh over 1500 leaves
)

// DeviceName is the name of a Machine's device on the host: 15 characters for
// an id of 14, the most that a device name can have.
func DeviceName(id string) string { return "m" + id }

// Device is the host side of the way into a Machine: a veth, or a tap.
type Device struct {
	Name      string // host side
	Ifindex   uint32 // host side
	MTU       uint16
	RouterMAC net.HardwareAddr // host side
	GuestMAC  net.HardwareAddr // empty: not known yet
	Peer      bool             // a veth whose other side is in another namespace
}

// VethConfig is a device to make.
type VethConfig struct {
	ID    string // of the Machine
	Alias string // of the host side, for people
	MTU   uint16 // 0: DefaultMTU

	PeerName string // of the other side; default GuestDevice
	XDP      bool   // the other side shall take frames from XDP
}

// MACs are the two hardware addresses of a Machine's device: locally
// administered, the same for the same id on every start.
func MACs(id string) (router, guest net.HardwareAddr) {
	h := fnv.New64a()
	h.Write([]byte(id))
	sum := h.Sum(nil)
	router = append(net.HardwareAddr{0x02}, sum[1:6]...)
	guest = append(net.HardwareAddr{0x06}, sum[1:6]...)
	return router, guest
}

// CreateVeth makes a Machine's device: GuestDevice in the namespace, and the
// host side in the namespace of the calling thread, which is the agent's. The
// host side is down, has IPv6 off and no address, and stays so: raising it is
// the loader's business. A device of the same name, left by a run that was
// broken off, is removed first.
func CreateVeth(ctx context.Context, namespace *os.File, c VethConfig) (Device, error) {
	setDefault(&c.MTU, DefaultMTU)
	setDefault(&c.PeerName, GuestDevice)
	if c.MTU < MinMTU || c.MTU > MaxMTU {
		return Device{}, fmt.Errorf("MTU %d of machine %s is out of range, expected %d to %d", c.MTU, c.ID, MinMTU, MaxMTU)
	}
	if err := ctx.Err(); err != nil {
		return Device{}, err
	}
	if err := DeleteVeth(c.ID); err != nil {
		return Device{}, err
	}
	router, guest := MACs(c.ID)
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU, attributes.HardwareAddr = DeviceName(c.ID), int(c.MTU), router
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attributes,
		PeerName:  c.PeerName, PeerHardwareAddr: guest, PeerMTU: uint32(c.MTU),
		PeerNamespace: netlink.NsFd(namespace.Fd()),
	})
	if err != nil {
		return Device{}, fmt.Errorf("make device %s: %w", DeviceName(c.ID), err)
	}
	d, err := finishVeth(ctx, namespace, c)
	if err != nil {
		return Device{}, errors.Join(err, DeleteVeth(c.ID))
	}
	return d, nil
}

func finishVeth(ctx context.Context, namespace *os.File, c VethConfig) (Device, error) {
	if c.XDP {
		if err := inNetNS(ctx, namespace, func() error { return netns.SetFeature(c.PeerName, netns.GRO, true) }); err != nil {
			return Device{}, err
		}
	}
	name := DeviceName(c.ID)
	link, err := netlink.LinkByName(name)
	if err != nil {
		return Device{}, fmt.Errorf("device %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(link, c.Alias); err != nil {
		return Device{}, fmt.Errorf("alias of device %s: %w", name, err)
	}
	// /proc/sys/net is that of the thread's namespace.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil {
		return Device{}, err
	}
	return FindVeth(c.ID)
}

// FindVeth finds the device of a Machine that runs. The error wraps
// os.ErrNotExist if there is none.
func FindVeth(id string) (Device, error) {
	name := DeviceName(id)
	link, err := netlink.LinkByName(name)
	if notFound(err) {
		return Device{}, fmt.Errorf("device %s: %w", name, os.ErrNotExist)
	}
	if err != nil {
		return Device{}, fmt.Errorf("device %s: %w", name, err)
	}
	a := link.Attrs()
	_, guest := MACs(id)
	return Device{Name: name, Ifindex: uint32(a.Index), MTU: uint16(a.MTU), RouterMAC: a.HardwareAddr, GuestMAC: guest, Peer: true}, nil
}

// DeleteVeth removes both sides of a Machine's device; it is no error if there
// is none.
func DeleteVeth(id string) error {
	link, err := netlink.LinkByName(DeviceName(id))
	if notFound(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	// The other side's namespace may just be taking it along.
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove device %s: %w", DeviceName(id), err)
	}
	return nil
}

// deleteOwnVeth is DeleteVeth unless the device is another agent's: one of a Machine that
// migrated there, where two agents share a network namespace.
func deleteOwnVeth(agent, id string) error {
	link, err := netlink.LinkByName(DeviceName(id))
	if err == nil && link.Attrs().Alias != "" && link.Attrs().Alias != AliasOf(agent, id) {
		return nil
	}
	return DeleteVeth(id)
}

func notFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}

// GuestConfig is what a Machine's side of its device gets.
type GuestConfig struct {
	Addr   netip.Addr // primary address; the /112 around it is the Machine's
	Device string     // inside; default GuestDevice
	// Shared is a namespace that somebody else runs and that may have other devices:
	// only fdaa::/16 is routed by the gateway, and nothing is left when the device goes.
	Shared bool
}

// ConfigureGuest sets up the inside of a Machine's network: loopback, its
// address, and a default route by sixpn.Gateway, which the router answers for.
// The other addresses of its /112 are local to it as well, so a server bound to
// all addresses is reached there.
func ConfigureGuest(ctx context.Context, namespace *os.File, c GuestConfig) error {
	if f, ok := sixpn.Parse(c.Addr); !ok || f.Machine == 0 {
		return fmt.Errorf("address %s is not one of a machine, expected fdaa:<network>:<host>:<machine>::2", c.Addr)
	}
	setDefault(&c.Device, GuestDevice)
	return inNetNS(ctx, namespace, func() error {
		// Before the device comes up: it must not solicit routers or take a
		// route from an advertisement that somebody managed to send.
		for key, value := range map[string]string{"disable_ipv6": "0", "accept_ra": "0", "accept_redirects": "0", "autoconf": "0"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+c.Device+"/"+key, []byte(value), 0); err != nil {
				return err
			}
		}
		return configureGuestLinks(c)
	})
}

func configureGuestLinks(c GuestConfig) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	device, err := netlink.LinkByName(c.Device)
	if err != nil {
		return err
	}
	prefix := netip.PrefixFrom(c.Addr, 112)
	address := &netlink.Addr{
		IPNet: ipNet(prefix),
		// Nobody else can have it, so nothing waits for its detection.
		Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE,
	}
	const local = 255 // the table of addresses that are this host's
	everything := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	route := netlink.RouteReplace
	localDevice := loopback
	if c.Shared {
		// A second sixpn network in one namespace would take over the first one's route.
		everything, route, localDevice = sixpn.Prefix, netlink.RouteAdd, device
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"raise lo", func() error { return netlink.LinkSetUp(loopback) }},
		{"raise " + c.Device, func() error { return netlink.LinkSetUp(device) }},
		{"add address " + prefix.String(), func() error { return netlink.AddrReplace(device, address) }},
		{"add route " + everything.String() + " via " + sixpn.Gateway.String(), func() error {
			return route(&netlink.Route{
				LinkIndex: device.Attrs().Index, Dst: ipNet(everything),
				Gw: sixpn.Gateway.AsSlice(), Src: c.Addr.AsSlice(),
			})
		}},
		{"add route local " + prefix.Masked().String(), func() error {
			return netlink.RouteReplace(&netlink.Route{LinkIndex: localDevice.Attrs().Index, Dst: ipNet(prefix.Masked()), Type: unix.RTN_LOCAL, Table: local})
		}},
	}
	for _, step := range steps {
		err := step.do()
		if c.Shared && errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: the namespace has a route there already: it can be one Machine only, detach the other or remove that route", step.what)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// AliasOf is the alias of a Machine's host side: which agent it is of.
func AliasOf(agent, id string) string { return aliasPrefix + agent + ":" + id }

const aliasPrefix = "sixpn:"
