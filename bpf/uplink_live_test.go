package bpf_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/netns"
)

// fabric is a router of somebody else's between two hosts, in a namespace of its own.
type fabric struct {
	guest // for its namespace alone
}

// fabricAddress is the source of the fabric's own errors: none of ours.
var fabricAddress = netip.MustParseAddr("2001:db8::1")

func newFabric(t *testing.T) *fabric {
	t.Helper()
	f := &fabric{guest{t: t}}
	f.namespace = newNamespace(t)
	f.do(func() error {
		for _, file := range []string{"all/forwarding", "default/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+file, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: fabricAddress.AsSlice(), Mask: net.CIDRMask(128, 128)}}
		return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, address))
	})
	return f
}

// connect gives a world an uplink of this name to the fabric, which routes the world's
// prefix to it. The other host's prefix leads back there.
func (f *fabric) connect(w *world, name string, other sixpn.Host, mtu int) {
	t := f.t
	t.Helper()
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = name, mtu
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: name, PeerNamespace: netlink.NsFd(f.namespace), PeerMTU: uint32(mtu)}))
	device, err := netlink.LinkByName(name)
	must(t, err)
	t.Cleanup(func() { must(t, netlink.LinkDel(device)) })
	tcx, err := link.AttachTCX(link.TCXOptions{Interface: device.Attrs().Index, Program: w.SixpnUplink, Attach: attachIngress})
	must(t, err)
	t.Cleanup(func() { must(t, tcx.Close()) })
	if w.way.isXDP() {
		mode := link.XDPDriverMode
		if w.way == byGeneric {
			mode = link.XDPGenericMode
		}
		xdp, err := link.AttachXDP(link.XDPOptions{Interface: device.Attrs().Index, Program: w.arrivalProgram(), Flags: mode})
		must(t, err)
		t.Cleanup(func() { must(t, xdp.Close()) })
	}
	inside, err := netlink.NewHandleAt(f.namespace)
	must(t, err)
	defer inside.Close()
	peer, err := inside.LinkByName(name)
	must(t, err)
	// A network card completes the checksums that a local stack leaves to it.
	f.do(func() error { return netns.SetFeature(name, netns.TxChecksum, false) })
	must(t, inside.LinkSetUp(peer))
	must(t, os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "accept_ra"), []byte("0"), 0o644))
	must(t, netlink.LinkSetUp(device))
	here, there := netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
	for _, side := range []struct {
		handle interface {
			NeighSet(*netlink.Neigh) error
			RouteAdd(*netlink.Route) error
		}
		device, other netlink.Link
		gateway       netip.Addr
		to            netip.Prefix
	}{
		{inside, peer, device, here, w.host.MeshPrefix()},
		{&netlink.Handle{}, device, peer, there, other.MeshPrefix()},
	} {
		index := side.device.Attrs().Index
		must(t, side.handle.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: unix.AF_INET6, IP: side.gateway.AsSlice(), HardwareAddr: side.other.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT,
		}))
		must(t, side.handle.RouteAdd(&netlink.Route{
			LinkIndex: index, Gw: side.gateway.AsSlice(),
			Dst: &net.IPNet{IP: side.to.Addr().AsSlice(), Mask: net.CIDRMask(side.to.Bits(), 128)},
		}))
	}
	w.meshIs(uint32(device.Attrs().Index), uint16(mtu))
}

// overFabric are two hosts with a Machine each, and a fabric between them.
func overFabric(t *testing.T, by way, mtu int) (near, distant *world, client, server *guest) {
	t.Helper()
	near = newWorld(t, func(s *settings) { s.way = by })
	distant = newWorld(t, func(s *settings) { s.way, s.host = by, farHost })
	flycastWorld(near)
	f := newFabric(t)
	f.connect(near, "upnear", farHost, testMTU)
	f.connect(distant, "upfar", thisHost, mtu)
	client, server = newGuest(t, near, near.client), newGuest(t, distant, distant.server)
	for _, g := range []*guest{client, server} {
		g.do(func() error { return netns.SetFeature("eth0", netns.GRO, true) })
	}
	return near, distant, client, server
}

// Machines of two hosts reach each other over a fabric, by XDP in a driver, by generic
// XDP and without.
func TestLiveUplink(t *testing.T) {
	for _, by := range []way{byUplink, byDriver, byGeneric} {
		t.Run(by.String(), func(t *testing.T) {
			near, distant, client, server := overFabric(t, by, testMTU)
			meet(t, near, distant, client, server)
			to := netip.AddrPortFrom(server.addr(), datagramInner)
			askDatagram(t, client, to, server.listenPacket("udp6", to.String()))
		})
	}
}

// Without a queue at its inner end a veth loses what XDP redirects into it. Only who is
// inside can take the queue away, and nobody but itself is worse off.
func TestLiveUplinkWithoutQueue(t *testing.T) {
	_, distant, client, server := overFabric(t, byDriver, testMTU)
	// A datagram is not sent again: every link is up once a stream was through.
	transfer(t, client, netip.AddrPortFrom(server.addr(), backendPort), server.listen(backendPort), 1)
	to := netip.AddrPortFrom(server.addr(), datagramInner)
	conn, err := client.dial("udp6", to)
	must(t, err)
	receiver := server.listenPacket("udp6", to.String())
	askDatagram(t, client, to, receiver)
	server.do(func() error { return netns.SetFeature("eth0", netns.GRO, false) })
	before := distant.counts().Ports["server"].TxPackets
	_, err = conn.Write([]byte{1})
	must(t, err)
	await.True(t, "XDP sends the datagram on", func() bool { return distant.counts().Ports["server"].TxPackets > before })
	server.do(func() error { return netns.SetFeature("eth0", netns.GRO, true) })
	askDatagram(t, client, to, receiver)
}

// The fabric narrows behind its first link, and says so itself, through a VIP too.
func TestLiveUplinkPathMTU(t *testing.T) {
	for _, by := range []way{byUplink, byDriver} {
		t.Run(by.String(), func(t *testing.T) {
			near, distant, client, server := overFabric(t, by, 1300)
			elsewhere(near, distant.server)
			listener := server.listen(backendPort)
			transfer(t, client, streamVIP, listener, 1<<20)
			transfer(t, client, netip.AddrPortFrom(server.addr(), backendPort), listener, 1<<20)
			for name, w := range map[string]*world{"near": near, "far": distant} {
				for _, reason := range []string{"spoofed_source", "unmatched_error", "wall", "internal"} {
					if n := w.counts().Drops[reason]; n != 0 {
						t.Errorf("the %s host dropped %d packets for %s", name, n, reason)
					}
				}
			}
		})
	}
}
