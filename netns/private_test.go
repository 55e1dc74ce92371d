package netns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/netns"
)

// A host is a fresh namespace that plays the agent's own, and a path for the private one.
func newHost(t *testing.T) (home *netns.Namespace, config netns.PrivateConfig) {
	t.Helper()
	dir := filepath.Join("/run", fmt.Sprintf("sixpn-test-%d-%d", os.Getpid(), time.Now().UnixNano()), "netns")
	home, err := netns.Create(filepath.Join(dir, "home"))
	if err != nil {
		t.Fatal(err)
	}
	config = netns.PrivateConfig{Name: "test", Path: filepath.Join(dir, "private"), Home: home}
	t.Cleanup(func() {
		if _, err := netns.DeletePrivate(config); err != nil {
			t.Error(err)
		}
		_ = home.Close()
		if err := netns.Delete(home.Path()); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
			t.Error(err)
		}
	})
	return home, config
}

func setup(t *testing.T, config netns.PrivateConfig) *netns.Private {
	t.Helper()
	p, err := netns.SetupPrivate(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

const (
	testNetwork = sixpn.Network(0x18)
	testHost    = sixpn.Host(0xa7b0d6b)
)

var machine = sixpn.MachineAddr(testNetwork, testHost, 10)

// outside makes the host side what a Machine sees of the router: the host side is
// up, has a Machine's address, and everything is behind the device inside.
func outside(t *testing.T, home *netns.Namespace, p *netns.Private) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(home.Do(func() error {
		link, err := netlink.LinkByName(p.HostSide().Name)
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: machine.AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD}
		gateway := net.IP(sixpn.Gateway.AsSlice())
		inside := net.ParseIP("fe80::2")
		return errors.Join(
			netlink.LinkSetUp(lo), netlink.LinkSetUp(link), netlink.AddrReplace(lo, addr),
			netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: gateway, Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}),
			netlink.NeighSet(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT,
				IP: inside, HardwareAddr: p.InsideSide().MAC,
			}),
			netlink.RouteReplace(&netlink.Route{
				LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V6, Gw: inside,
				Dst: &net.IPNet{IP: net.ParseIP("fdaa::"), Mask: net.CIDRMask(16, 128)},
			}))
	}))
	waitFor(t, home, "the host side transmits", transmits(p.HostSide().Name))
	waitFor(t, home, "the Machine's address is local", isLocal(machine))
	waitFor(t, p.Namespace, "the device inside transmits", transmits(netns.Inside))
}

// waitFor polls a condition inside a namespace, for half a minute at most.
func waitFor(t *testing.T, n *netns.Namespace, what string, holds func() (bool, error)) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	deadline := time.After(30 * time.Second)
	for {
		var ok bool
		if err := n.Do(func() (err error) { ok, err = holds(); return err }); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("waited half a minute until %s", what)
		}
	}
}

// transmits: the kernel activates a device a moment after its carrier came up, and drops what is sent before.
func transmits(name string) func() (bool, error) {
	return func() (up bool, err error) {
		err = onLink(name, func(link netlink.Link) error { up = link.Attrs().OperState == netlink.OperUp; return nil })
		return up, err
	}
}

// isLocal: the kernel makes an address local a moment after it was added.
func isLocal(address netip.Addr) func() (bool, error) {
	return func() (bool, error) {
		routes, err := netlink.RouteGet(address.AsSlice())
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL, nil
	}
}

// asked are the addresses that must answer without being configured.
var asked = []netip.Addr{
	sixpn.DNS,
	sixpn.NetworkDNS(testNetwork),
	sixpn.AgentAddr(testNetwork, testHost),
	sixpn.VIPAddr(testNetwork, 3),
}

func TestPrivateAnswersFromTheAddressAsked(t *testing.T) {
	home, config := newHost(t)
	p := setup(t, config)
	outside(t, home, p)
	echoUDP(t, p)
	echoTCP(t, p)
	from := &net.TCPAddr{IP: machine.AsSlice()}
	for _, to := range asked {
		t.Run("udp/"+to.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			// Not connected: a connected socket would hide an answer from elsewhere.
			conn, err := home.ListenPacket(ctx, "udp6", net.JoinHostPort(machine.String(), "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			deadline, _ := ctx.Deadline()
			_ = conn.SetDeadline(deadline)
			if _, err := conn.WriteTo([]byte("hello"), &net.UDPAddr{IP: to.AsSlice(), Port: 53}); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 100)
			n, source, err := conn.ReadFrom(answer)
			if err != nil {
				t.Fatal(err)
			}
			if got := source.(*net.UDPAddr).AddrPort(); got != netip.AddrPortFrom(to, 53) || string(answer[:n]) != "hello" {
				t.Errorf("answer %q came from %s, expected \"hello\" from %s port 53", answer[:n], got, to)
			}
		})
		t.Run("tcp/"+to.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			conn, err := home.Dial(ctx, "tcp6", from, net.JoinHostPort(to.String(), "53"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			answer, err := io.ReadAll(conn)
			if err != nil || string(answer) != "hello" {
				t.Errorf("answer %q, error %v, expected \"hello\"", answer, err)
			}
		})
	}
}

// echoUDP answers from the address that was asked, which only the control message knows.
func echoUDP(t *testing.T, p *netns.Private) {
	t.Helper()
	conn, err := p.ListenPacket(t.Context(), "udp6", "[::]:53", netns.FreeBind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	pc := ipv6.NewPacketConn(conn)
	if err := pc.SetControlMessage(ipv6.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 2000)
		for {
			n, message, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if _, err := pc.WriteTo(b[:n], &ipv6.ControlMessage{Src: message.Dst}, from); err != nil {
				t.Errorf("answer: %v", err)
				return
			}
		}
	}()
}

func echoTCP(t *testing.T, p *netns.Private) {
	t.Helper()
	listener, err := p.Listen(t.Context(), "tcp6", "[::]:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
}

func TestPrivateBindsAndDialsForeignAddresses(t *testing.T) {
	home, config := newHost(t)
	p := setup(t, config)
	outside(t, home, p)
	vip := sixpn.VIPAddr(testNetwork, 7)
	listener, err := p.Listen(t.Context(), "tcp6", net.JoinHostPort(vip.String(), "443"), netns.FreeBind)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := home.Dial(t.Context(), "tcp6", &net.TCPAddr{IP: machine.AsSlice()}, net.JoinHostPort(vip.String(), "443"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	// The other way: the handler proxy dials from the agent's address.
	back, err := home.Listen(t.Context(), "tcp6", net.JoinHostPort(machine.String(), "80"))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	agent := sixpn.AgentAddr(testNetwork, testHost)
	out, err := p.Dial(t.Context(), "tcp6", &net.TCPAddr{IP: agent.AsSlice()}, back.Addr().String(), netns.FreeBind)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if got := in.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != agent {
		t.Errorf("the connection came from %s, expected the agent's %s", got, agent)
	}
}

func TestRawSocketSendsAnySource(t *testing.T) {
	home, config := newHost(t)
	p := setup(t, config)
	outside(t, home, p)
	receiver, err := home.ListenPacket(t.Context(), "ip6:253", machine.String())
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	_ = receiver.SetDeadline(time.Now().Add(30 * time.Second))
	raw, err := p.Raw()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	vip := sixpn.VIPAddr(testNetwork, 9)
	packet := append([]byte{0x60, 0, 0, 0, 0, 4, 253, 64}, vip.AsSlice()...)
	packet = append(packet, machine.AsSlice()...)
	packet = append(packet, "ping"...)
	if err := raw.Send(packet); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, from, err := receiver.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if from.String() != vip.String() || string(b[:n]) != "ping" {
		t.Errorf("%q from %s, expected \"ping\" from %s", b[:n], from, vip)
	}
	if err := raw.Send(packet[:39]); err == nil {
		t.Error("a packet without a whole header was sent")
	}
}
