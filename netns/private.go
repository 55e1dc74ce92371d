package netns

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
)

// Inside is the name of the device inside every private namespace.
const Inside = "sixpn0"

const (
	defaultMTU = 1420
	// Of the rule and the table that make every address local to what arrives.
	localPreference = 100
	localTable      = 100
)

// PrivateConfig says which private namespace is wanted.
type PrivateConfig struct {
	Name string     // the agent's, e.g. "default"
	Path string     // where the namespace is pinned, e.g. /run/sixpn/netns/default
	MTU  uint16     // of both sides, bytes; 0: 1420
	Home *Namespace // where the host side is; nil: the process's own namespace
}

// Side is one end of the pair between the router and the private namespace.
type Side struct {
	Name    string
	Ifindex uint32 // in the namespace of that end
	MAC     net.HardwareAddr
}

// Private is the namespace `sixpn-NAME`. It holds only the daemon's own sockets;
// every address that a packet arrives for is local in it, so that DNS, agent
// addresses and VIPs need no configuration of their own.
type Private struct {
	*Namespace
	host, inside Side
	mtu          uint16
}

// HostSide is the device for the loader. It is left as it was found, and down
// when it was made here.
func (p *Private) HostSide() Side { return p.host }

// InsideSide is the device inside.
func (p *Private) InsideSide() Side { return p.inside }

// MTU is that of both sides, bytes.
func (p *Private) MTU() uint16 { return p.mtu }

// HostDevice is the name of the host side's device: "sixpn-" and the agent's
// name, or a hash of it where the name is too long for a device.
func HostDevice(name string) string {
	device := "sixpn-" + name
	if len(device) < unix.IFNAMSIZ {
		return device
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	return fmt.Sprintf("sixpn-%08x", hash.Sum32())
}

func hostAlias(name string) string { return "sixpn:" + name + ":host" }

// IsHostDevice says whether a device is some agent's way into its private namespace.
func IsHostDevice(link netlink.Link) bool {
	name, ok := strings.CutPrefix(link.Attrs().Alias, "sixpn:")
	return ok && strings.HasSuffix(name, ":host")
}

// SetupPrivate makes the private namespace and its pair of devices, or takes over
// what is there and repairs what is missing. Nothing that is right is touched:
// traffic goes on while a new agent starts.
func SetupPrivate(ctx context.Context, config PrivateConfig) (*Private, error) {
	if config.Name == "" || config.Path == "" {
		return nil, errors.New("a private namespace needs the agent's name and a path to be pinned at")
	}
	if config.MTU == 0 {
		config.MTU = defaultMTU
	}
	namespace, err := Create(config.Path)
	if err != nil {
		return nil, err
	}
	p := &Private{Namespace: namespace, mtu: config.MTU}
	if err := p.setup(ctx, config); err != nil {
		_ = namespace.Close()
		return nil, fmt.Errorf("set up the private namespace of %q: %w", config.Name, err)
	}
	return p, nil
}

func (p *Private) setup(ctx context.Context, config PrivateConfig) error {
	if err := config.Home.Do(func() error { return p.pair(config) }); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.Do(func() error { return p.configure(config) })
}

// pair finds both ends, or makes them. It runs in the agent's namespace.
func (p *Private) pair(config PrivateConfig) error {
	name := HostDevice(config.Name)
	host, err := linkByName(name)
	if err != nil {
		return err
	}
	var inside netlink.Link
	if err := p.Do(func() error { inside, err = linkByName(Inside); return err }); err != nil {
		return err
	}
	if host != nil && host.Attrs().Alias != hostAlias(config.Name) && !p.isPair(host, inside) {
		return fmt.Errorf("device %s exists and is not this agent's (its alias is %q, expected %q): remove it or rename the agent",
			name, host.Attrs().Alias, hostAlias(config.Name))
	}
	if !p.isPair(host, inside) {
		// Half of a pair is of no use, and removing either end removes both.
		for _, remove := range []func() error{
			func() error { return deleteLink(host) },
			func() error { return p.Do(func() error { return deleteLink(inside) }) },
		} {
			if err := remove(); err != nil {
				return err
			}
		}
		if host, err = p.makePair(name, config.MTU); err != nil {
			return err
		}
	}
	// The alias is of no meaning to the pair, so a crash before it costs nothing.
	if err := netlink.LinkSetAlias(host, hostAlias(config.Name)); err != nil {
		return fmt.Errorf("set the alias of %s: %w", name, err)
	}
	if host.Attrs().MTU != int(config.MTU) {
		if err := netlink.LinkSetMTU(host, int(config.MTU)); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", name, config.MTU, err)
		}
	}
	p.host = side(host)
	return nil
}

// isPair says whether two devices are the ends of one pair.
func (p *Private) isPair(host, inside netlink.Link) bool {
	return host != nil && inside != nil && host.Type() == "veth" && inside.Type() == "veth" &&
		host.Attrs().ParentIndex == inside.Attrs().Index && inside.Attrs().ParentIndex == host.Attrs().Index
}

// makePair makes both ends in one request, the inner one where it belongs: there
// is no moment at which a killed agent leaves half of it.
func (p *Private) makePair(name string, mtu uint16) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = int(mtu)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: Inside, PeerNamespace: netlink.NsFd(p.File().Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make the pair %s and %s: %w", name, Inside, err)
	}
	return netlink.LinkByName(name)
}

func side(link netlink.Link) Side {
	a := link.Attrs()
	return Side{Name: a.Name, Ifindex: uint32(a.Index), MAC: a.HardwareAddr}
}

// linkByName returns nil for a device that does not exist.
func linkByName(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for device %s: %w", name, err)
	}
	return link, nil
}

func deleteLink(link netlink.Link) error {
	if link == nil {
		return nil
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove device %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// configure runs inside. Every step is an assertion that may already hold.
func (p *Private) configure(config PrivateConfig) error {
	link, err := netlink.LinkByName(Inside)
	if err != nil {
		return fmt.Errorf("find %s: %w", Inside, err)
	}
	p.inside = side(link)
	// Before the device is up, or it would give itself addresses and solicit.
	for _, setting := range [][2]string{
		{"ipv6/conf/all/disable_ipv6", "0"},
		{"ipv6/conf/lo/disable_ipv6", "0"},
		{"ipv6/conf/all/forwarding", "0"},
		{"ipv4/conf/all/forwarding", "0"},
		{"ipv6/conf/" + Inside + "/disable_ipv6", "0"},
		{"ipv6/conf/" + Inside + "/addr_gen_mode", "1"}, // none: no link-local address
		{"ipv6/conf/" + Inside + "/accept_ra", "0"},
		{"ipv6/conf/" + Inside + "/autoconf", "0"},
		{"ipv6/conf/" + Inside + "/accept_redirects", "0"},
		{"ipv6/conf/" + Inside + "/accept_dad", "0"},
		{"ipv6/conf/" + Inside + "/dad_transmits", "0"},
		{"ipv4/conf/" + Inside + "/arp_ignore", "8"}, // IPv4 is off: no answer to any ARP
	} {
		if err := os.WriteFile("/proc/sys/net/"+setting[0], []byte(setting[1]), 0); err != nil {
			return fmt.Errorf("set sysctl net/%s to %s: %w", setting[0], setting[1], err)
		}
	}
	if link.Attrs().MTU != int(config.MTU) {
		if err := netlink.LinkSetMTU(link, int(config.MTU)); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", Inside, config.MTU, err)
		}
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, up := range []netlink.Link{loopback, link} {
		if err := netlink.LinkSetUp(up); err != nil {
			return fmt.Errorf("raise %s: %w", up.Attrs().Name, err)
		}
	}
	return p.routes(loopback, link)
}

func (p *Private) routes(loopback, link netlink.Link) error {
	everything := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	if err := netlink.RouteReplace(&netlink.Route{
		LinkIndex: loopback.Attrs().Index, Family: netlink.FAMILY_V6, Dst: everything,
		Type: unix.RTN_LOCAL, Table: localTable, Scope: netlink.SCOPE_HOST,
	}); err != nil {
		return fmt.Errorf("make every address local in table %d: %w", localTable, err)
	}
	// A rule must name the device: without it replies would be local too, and loop back.
	// By lo comes only what a socket that is bound to it sends.
	for _, rule := range []*netlink.Rule{{IifName: Inside}, {OifName: "lo"}} {
		named := netlink.NewRule()
		named.IifName, named.OifName = rule.IifName, rule.OifName
		named.Family, named.Table, named.Priority = netlink.FAMILY_V6, localTable, localPreference
		if err := netlink.RuleAdd(named); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add the rule for what arrives by %s%s: %w", rule.IifName, rule.OifName, err)
		}
	}
	gateway := net.IP(sixpn.Gateway.AsSlice())
	if err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT,
		IP: gateway, HardwareAddr: p.host.MAC,
	}); err != nil {
		return fmt.Errorf("make %s a static neighbour: %w", gateway, err)
	}
	if err := netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V6, Dst: everything, Gw: gateway,
	}); err != nil {
		return fmt.Errorf("add the default route via %s: %w", gateway, err)
	}
	return nil
}

// DeletePrivate removes the pair and the namespace, and says what it removed.
// The loader must have let go of the host side before.
func DeletePrivate(config PrivateConfig) (removed []string, err error) {
	err = config.Home.Do(func() error {
		host, err := linkByName(HostDevice(config.Name))
		if err != nil || host == nil {
			return err
		}
		if host.Attrs().Alias != hostAlias(config.Name) {
			return nil
		}
		removed = append(removed, "device "+host.Attrs().Name)
		return deleteLink(host)
	})
	if err != nil {
		return removed, err
	}
	if _, err := os.Lstat(config.Path); errors.Is(err, os.ErrNotExist) {
		return removed, nil
	}
	// A pair that was made and not yet named: the end inside takes the other along.
	if namespace, err := Open(config.Path); err == nil {
		err = namespace.Do(func() error {
			inside, err := linkByName(Inside)
			if err != nil {
				return err
			}
			return deleteLink(inside)
		})
		_ = namespace.Close()
		if err != nil {
			return removed, err
		}
	}
	if err := Delete(config.Path); err != nil {
		return removed, err
	}
	return append(removed, "namespace "+config.Path), nil
}
