package machine_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

func itoa(n int) string { return strconv.Itoa(n) }

func uidOf(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// guest reaches a Machine over its device, as the router would.
type guest struct{}

// connectGuest makes and configures a Machine's device and gives the host side
// what the router does otherwise.
func connectGuest(t *testing.T, p *machine.Process, addr string) guest {
	t.Helper()
	namespace, err := p.NetNS(await.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	device, err := machine.CreateVeth(await.Context(t), namespace, machine.VethConfig{ID: p.ID(), Alias: machine.AliasOf("test", p.ID())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := machine.DeleteVeth(p.ID()); err != nil {
			t.Error(err)
		}
	})
	address := netip.MustParseAddr(addr)
	if err := machine.ConfigureGuest(await.Context(t), namespace, machine.GuestConfig{Addr: address}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device.Name+"/disable_ipv6", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(device.Name)
	if err != nil {
		t.Fatal(err)
	}
	gateway := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)}, Flags: 2 /* no detection */}
	for _, err := range []error{netlink.LinkSetUp(link), netlink.AddrAdd(link, gateway), netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: net.ParseIP(addr).Mask(net.CIDRMask(112, 128)), Mask: net.CIDRMask(112, 128)},
	})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	neighbour(t, link, device, addr)
	neighbour(t, link, device, "fdaa:0:18:0:7:0:a:99")
	return guest{}
}

// neighbour tells the host which hardware address an address is at: a Machine
// does not answer for the addresses that it has no device for.
func neighbour(t *testing.T, link netlink.Link, d machine.Device, addr string) {
	t.Helper()
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, IP: net.ParseIP(addr), HardwareAddr: d.GuestMAC, State: netlink.NUD_PERMANENT, Family: syscall.AF_INET6,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (guest) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

func TestVethIsDownAndSilentOnTheHost(t *testing.T) {
	d := newDriver(t)
	p, err := d.Create(await.Context(t), shell("0123456789abcd", "exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := p.NetNS(await.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	// Twice: the second replaces what a broken-off start left.
	var device machine.Device
	for range 2 {
		device, err = machine.CreateVeth(await.Context(t), namespace, machine.VethConfig{ID: p.ID(), Alias: machine.AliasOf("test", p.ID()), MTU: 1400})
		if err != nil {
			t.Fatal(err)
		}
	}
	link, err := netlink.LinkByName("m0123456789abcd")
	if err != nil {
		t.Fatal(err)
	}
	a := link.Attrs()
	if a.Flags&net.FlagUp != 0 || a.MTU != 1400 || a.Alias != "sixpn:test:0123456789abcd" || uint32(a.Index) != device.Ifindex || a.HardwareAddr.String() != device.RouterMAC.String() {
		t.Errorf("device %+v, expected it down, of MTU 1400, with its alias and the address that was returned", a)
	}
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + a.Name + "/disable_ipv6")
	if err != nil || strings.TrimSpace(string(off)) != "1" {
		t.Errorf("disable_ipv6 is %q, %v", off, err)
	}
	if err := machine.ConfigureGuest(await.Context(t), namespace, machine.GuestConfig{Addr: netip.MustParseAddr("fdaa:0:18:0:7:0:a:2")}); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	out, _ := probe(t, p, "ip -6 addr show eth0; ip -6 route; ip link show eth0")
	for _, want := range []string{"fdaa:0:18:0:7:0:a:2/112", "default via fe80::1 dev eth0", "mtu 1400", device.GuestMAC.String()} {
		if !strings.Contains(out, want) {
			t.Errorf("the inside %q lacks %q", out, want)
		}
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	wait(t, p)
	namespace.Close()
	await.True(t, "the device gone with its machine", func() bool {
		_, err := machine.FindVeth(p.ID())
		return os.IsNotExist(err) || strings.Contains(fmt.Sprint(err), "does not exist")
	})
}

func TestBadNetworksAreRefused(t *testing.T) {
	d := newDriver(t)
	p, err := d.Create(await.Context(t), shell("n", "true"))
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := p.NetNS(await.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	if _, err := machine.CreateVeth(await.Context(t), namespace, machine.VethConfig{ID: "n", MTU: 1279}); err == nil {
		t.Error("MTU 1279 was taken")
	}
	if err := machine.ConfigureGuest(await.Context(t), namespace, machine.GuestConfig{Addr: netip.MustParseAddr("2001:db8::1")}); err == nil {
		t.Error("an address outside fdaa::/16 was taken")
	}
}
