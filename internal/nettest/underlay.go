package nettest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/netns"
)

// Underlay is the network between hosts: a bridge in a network namespace of its own, or a
// router (see NewFabric). Hosts that are on it share nothing else.
type Underlay struct {
	namespace *netns.Namespace
	mtu       int
	router    bool

	mu     sync.Mutex
	joined int // links that ever were: no address is given twice
	links  []*Link
	absent map[path]bool // what does not pass
}

// path is one direction between two links; nil is every link.
type path struct {
	from, to *Link
	udp      bool // of it, only UDP
}

// Link is how one namespace is on an underlay: by a device "uplink" with an address of
// each family, of IPv6 alone on a router.
type Link struct {
	V4, V6 netip.Addr

	underlay *Underlay
	port     string // the underlay's end of the pair
	ifindex  int    // of port
	bridged  string // the device that is in the bridge: port, or that of a delay
	slow     *delay
}

// Uplink is the name of the device by which a namespace is on an underlay.
const Uplink = "uplink"

// The addresses of an underlay, of which each link has one; they are for documentation,
// so that nothing outside can have them.
var (
	underlayV4 = netip.MustParsePrefix("192.0.2.0/24")
	underlayV6 = netip.MustParsePrefix("2001:db8:51:82::/64")
)

const bridgeName = "underlay"

// NewUnderlay makes an underlay whose devices have an MTU, 1500 if it is 0.
func NewUnderlay(mtu int) (*Underlay, error) {
	setDefault(&mtu, 1500)
	namespace, err := newNamespace()
	if err != nil {
		return nil, err
	}
	u := &Underlay{namespace: namespace, mtu: mtu, absent: map[path]bool{}}
	err = namespace.Do(func() error {
		snooping := false // multicast reaches all, also before anybody has asked for it
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName, MTU: mtu}, MulticastSnooping: &snooping}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("make the bridge of an underlay: %w", err)
		}
		return raise(bridgeName)
	})
	if err != nil {
		return nil, errors.Join(err, namespace.Close())
	}
	return u, nil
}

// Keep starts a process that keeps the underlay when this one ends, and returns its id.
func (u *Underlay) Keep() (pid int, err error) {
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := u.namespace.Do(cmd.Start); err != nil {
		return 0, fmt.Errorf("keep an underlay: %w", err)
	}
	return cmd.Process.Pid, nil
}

// Close removes the underlay and every link of it.
func (u *Underlay) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for len(u.links) > 0 {
		errs = append(errs, u.links[0].leaveLocked())
	}
	return errors.Join(append(errs, u.namespace.Close())...)
}

// Leave takes the link away from both its ends.
func (l *Link) Leave() error {
	l.underlay.mu.Lock()
	defer l.underlay.mu.Unlock()
	return l.leaveLocked()
}

func (l *Link) leaveLocked() error {
	u := l.underlay
	if !slices.Contains(u.links, l) {
		return nil
	}
	u.links = slices.DeleteFunc(u.links, func(other *Link) bool { return other == l })
	maps.DeleteFunc(u.absent, func(p path, _ bool) bool { return p.from == l || p.to == l })
	return errors.Join(l.endDelay(), u.namespace.Do(func() error { return remove(l.port) }))
}

// raise sets a device of the calling thread's namespace up. No device of an underlay
// has addresses or speech of its own but those that are given to it.
func raise(name string) error {
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil {
		return err
	}
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(device)
}

func remove(name string) error {
	device, err := netlink.LinkByName(name)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return nil // with the namespace of its other end
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(device)
}

// Join puts a namespace on the underlay, with the next free addresses.
func (u *Underlay) Join(namespace *netns.Namespace) (*Link, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.joined++
	n := u.joined
	l := &Link{underlay: u, port: fmt.Sprintf("port%d", n)}
	addresses := []netip.Prefix{netip.PrefixFrom(nth(underlayV4, n), underlayV4.Bits()), netip.PrefixFrom(nth(underlayV6, n), underlayV6.Bits())}
	if u.router {
		addresses = []netip.Prefix{fabricAddress(n)}
	} else {
		l.V4 = addresses[0].Addr()
	}
	l.V6 = addresses[len(addresses)-1].Addr()
	l.bridged = l.port
	err := u.namespace.Do(func() error {
		pair := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: l.port, MTU: u.mtu}, PeerName: Uplink,
			PeerNamespace: netlink.NsFd(int(namespace.File().Fd())),
		}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make a link of an underlay: %w", err)
		}
		l.ifindex = pair.Index
		if u.router {
			return openPort(l)
		}
		return errors.Join(enslave(l.port), raise(l.port))
	})
	if err != nil {
		return nil, err
	}
	u.links = append(u.links, l)
	err = namespace.Do(func() error {
		device, err := netlink.LinkByName(Uplink)
		if err != nil {
			return err
		}
		// What leaves is as on a wire: whole frames with whole checksums.
		if err := netns.SetFeature(Uplink, netns.TxChecksum, false); err != nil {
			return err
		}
		for _, a := range addresses {
			if err := addAddress(device, a); err != nil {
				return err
			}
		}
		if u.router {
			return enterFabric(device, l)
		}
		return netlink.LinkSetUp(device)
	})
	if err != nil {
		return nil, err
	}
	return l, errors.Join(u.namespace.Do(func() error { return forwards(l.port) }), namespace.Do(l.listens))
}

// addAddress gives a device an address that is there at once.
func addAddress(device netlink.Link, a netip.Prefix) error {
	address := &netlink.Addr{IPNet: ipNet(a)}
	if a.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	return netlink.AddrAdd(device, address)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// listens waits until the kernel of the thread's namespace answers those who look for
// the link's address, which begins a while after the device is up.
func (l *Link) listens() error {
	a := l.V6.As16()
	group := fmt.Sprintf("ff0200000000000000000001ff%x", a[13:])
	return Eventually(context.Background(), "the uplink has its address", func(context.Context) error {
		joined, err := os.ReadFile("/proc/thread-self/net/igmp6")
		if err == nil && !strings.Contains(string(joined), group) {
			err = fmt.Errorf("group %s is not joined", group)
		}
		return err
	})
}

// forwards waits until the bridge knows that a device has its carrier, which the kernel
// tells it up to a second late.
func forwards(name string) error {
	return Eventually(context.Background(), "the bridge forwards to "+name, func(context.Context) error {
		device, err := netlink.LinkByName(name)
		if err == nil && device.Attrs().OperState != netlink.OperUp {
			err = fmt.Errorf("it is %v", device.Attrs().OperState)
		}
		return err
	})
}

// nth is an address of a prefix.
func nth(prefix netip.Prefix, n int) netip.Addr {
	a := prefix.Addr().AsSlice()
	a[len(a)-1] = byte(n)
	address, _ := netip.AddrFromSlice(a)
	return address
}

func enslave(name string) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	return netlink.LinkSetMaster(device, bridge)
}

// Cut lets nothing more pass from or to a link, silently: the device stays up, as
// behind a switch that has failed.
func (l *Link) Cut() error { return l.underlay.change(true, path{from: l}, path{to: l}) }

// Heal ends every cut of a link.
func (l *Link) Heal() error {
	u := l.underlay
	u.mu.Lock()
	var over []path
	for p := range u.absent {
		if p.from == l || p.to == l {
			over = append(over, p)
		}
	}
	u.mu.Unlock()
	return u.change(false, over...)
}

// CutTo lets nothing pass from this link to another, nil is all; what that sends still
// comes.
func (l *Link) CutTo(other *Link) error { return l.underlay.change(true, path{from: l, to: other}) }

// change applies one set of cuts, all at one instant.
func (u *Underlay) change(absent bool, paths ...path) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range paths {
		if absent {
			u.absent[p] = true
		} else {
			delete(u.absent, p)
		}
	}
	return u.applyLocked()
}

func (u *Underlay) applyLocked() error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(u.namespace.File().Fd())))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "cuts"}
	if u.router {
		table.Family = nftables.TableFamilyIPv6
	}
	conn.AddTable(table) // so that there is one to remove
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for p := range u.absent {
		var match []expr.Any
		for key, l := range map[expr.MetaKey]*Link{expr.MetaKeyIIFNAME: p.from, expr.MetaKeyOIFNAME: p.to} {
			if l != nil {
				name := make([]byte, unix.IFNAMSIZ)
				copy(name, l.bridged)
				match = append(match, &expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name})
			}
		}
		if p.udp {
			match = append(match, onlyUDP()...)
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("cut an underlay: %w", err)
	}
	return nil
}

// Delay holds everything from and to a link back for a time, each way; 0 ends that. A
// frame that is under way then is lost. A router cannot.
func (l *Link) Delay(each time.Duration) error {
	u := l.underlay
	if u.router {
		return errors.New("a router delays nothing")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := l.endDelay(); err != nil {
		return err
	}
	if each > 0 {
		if err := l.beginDelay(each); err != nil {
			return errors.Join(err, l.endDelay())
		}
	}
	return u.applyLocked() // another device is in the bridge now
}

// isPort says whether a device is the underlay's end of a link.
func (u *Underlay) isPort(ifindex int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.ContainsFunc(u.links, func(l *Link) bool { return l.ifindex == ifindex })
}

// Links are those of the underlay, in their order.
func (u *Underlay) Links() []*Link {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.links)
}
