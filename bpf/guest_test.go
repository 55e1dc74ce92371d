package bpf_test

import (
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
)

// guest is a namespace with a kernel's own IPv6 behind a veth, as a Machine is.
type guest struct {
	*member
	t         *testing.T
	namespace netns.NsHandle
	host      string // name of the host's side
}

var guests atomic.Uint32

// newGuest puts a member of the world into a namespace and attaches the router to its veth.
func newGuest(t *testing.T, w *world, m *member) *guest {
	t.Helper()
	g := &guest{member: m, t: t, host: "guest" + strconv.Itoa(int(guests.Add(1))), namespace: newNamespace(t)}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = g.host, testMTU
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(g.namespace), PeerMTU: testMTU,
	}))
	t.Cleanup(func() {
		device, err := netlink.LinkByName(g.host)
		must(t, err)
		must(t, netlink.LinkDel(device))
	})
	device := raise(t, w, g.host)
	m.ifindex, m.router = uint32(device.Attrs().Index), mac(device.Attrs().HardwareAddr)
	g.configure()
	w.setPort(bpf.RouterPort{
		Ifindex: m.ifindex, Network: uint32(m.network), Host: uint32(m.host), Machine: uint32(m.machine), Counters: m.counters,
		Mtu: testMTU, Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Mac: m.router,
	})
	w.setDevice(m, testMTU)
	return g
}

// newNamespace makes a namespace, which nobody is in yet.
func newNamespace(t *testing.T) (namespace netns.NsHandle) {
	t.Helper()
	done := make(chan error)
	go func() {
		// A thread that has been elsewhere ends with its goroutine.
		runtime.LockOSThread()
		var err error
		namespace, err = netns.New()
		done <- err
	}()
	must(t, <-done)
	t.Cleanup(func() { must(t, namespace.Close()) })
	return namespace
}

// configure gives the guest its address and its way out.
func (g *guest) configure() {
	g.t.Helper()
	inside, err := netlink.NewHandleAt(g.namespace)
	must(g.t, err)
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		device, err := inside.LinkByName(name)
		must(g.t, err)
		must(g.t, inside.LinkSetUp(device))
	}
	device, err := inside.LinkByName("eth0")
	must(g.t, err)
	g.guest = mac(device.Attrs().HardwareAddr)
	must(g.t, inside.AddrAdd(device, &netlink.Addr{
		IPNet: &net.IPNet{IP: g.addr().AsSlice(), Mask: net.CIDRMask(112, 128)}, Flags: unix.IFA_F_NODAD,
	}))
	must(g.t, inside.RouteAdd(&netlink.Route{
		LinkIndex: device.Attrs().Index, Gw: sixpn.Gateway.AsSlice(),
	}))
}

// do calls a function inside the namespace; sockets made there stay there.
func (g *guest) do(f func() error) {
	g.t.Helper()
	if err := g.try(f); err != nil {
		g.t.Fatalf("in the namespace of %s: %v", g.name, err)
	}
}

func (g *guest) try(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(g.namespace); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (g *guest) listen(port uint16) net.Listener {
	g.t.Helper()
	var listener net.Listener
	g.do(func() (err error) {
		listener, err = net.Listen("tcp6", netip.AddrPortFrom(g.addr(), port).String())
		return err
	})
	g.t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func (g *guest) listenPacket(network, address string) net.PacketConn {
	g.t.Helper()
	var conn net.PacketConn
	g.do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dial connects from inside; the error is the caller's to judge.
func (g *guest) dial(network string, to netip.AddrPort) (conn net.Conn, err error) {
	failed := g.try(func() error {
		dialer := net.Dialer{Timeout: patience}
		conn, err = dialer.Dial(network, to.String())
		return nil
	})
	if failed != nil {
		return nil, failed
	}
	if conn != nil {
		g.t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}
