package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/wireguard"
)

// fabricMTU is that of the link of the second host; the first one's is 1500.
const fabricMTU = 1400

// startNative makes a fleet on a fabric that routes, one of whose links is narrow.
func startNative(ctx context.Context, t *testing.T, c nettest.FleetConfig) *twoHosts {
	t.Helper()
	c.Fabric = true
	f := &twoHosts{Fleet: nettest.Get[*nettest.Fleet](t)(nettest.NewFleet(c))}
	t.Cleanup(func() { nettest.Must(t, f.Close()) })
	first := nettest.Get[*nettest.Host](t)(f.NewHost("iad"))
	nettest.Must(t, f.Found(ctx, first))
	second := nettest.Get[*nettest.Host](t)(f.NewHost("fra"))
	nettest.Must(t, second.Narrow(fabricMTU))
	nettest.Must(t, f.Join(ctx, second))
	nettest.Must(t, f.Meet(ctx))
	f.org(ctx, t, "acme")
	f.here, f.there = f.server(ctx, t, 0, "acme-here"), f.server(ctx, t, 1, "acme-there")
	return f
}

// TestNative: what Machines on two hosts are to each other where the fabric between the
// hosts carries their packets as they are.
func TestNative(t *testing.T) {
	ctx := nettest.Context(t)
	f := startNative(ctx, t, nettest.FleetConfig{Native: true})
	f.org(ctx, t, "rival")
	rival, spy := f.server(ctx, t, 1, "rival-there"), f.server(ctx, t, 0, "rival-here")
	reach(ctx, t, f.here, f.there.Addr)
	reach(ctx, t, f.there, f.here.Addr)
	reach(ctx, t, spy, rival.Addr)
	miss(ctx, t, spy, f.there.Addr)
	miss(ctx, t, rival, f.here.Addr)
	testFlycast(ctx, t, f)
	testNames(ctx, t, f)

	// Across networks, by an address and by nothing else.
	vip := nettest.Get[netip.Addr](t)(f.Hosts[0].AllocateVIP(ctx, "acme-there", "rival"))
	nettest.Must(t, f.Settle(ctx))
	crossed := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, spy, "connect", "-count", strconv.Itoa(probes), on(vip, vipPort)))
	if crossed.Answers[f.there.ID] != probes {
		t.Errorf("from another network through Flycast: %+v", crossed)
	}
	miss(ctx, t, spy, f.there.Addr)

	testFabricMTU(ctx, t, f)
	testNowhere(ctx, t, f)
	for _, h := range f.Hosts {
		if n := nettest.Get[uint64](t)(h.Drops(ctx, "wall")); n != 0 {
			t.Errorf("only the final check of host %s stopped %d packets", h.Name, n)
		}
	}
}

// testFabricMTU: what is too large for a link in the middle is answered by the fabric's
// router, and a sender learns it also through a Flycast address.
func testFabricMTU(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	const bulk = 8 << 20
	for _, row := range []struct {
		name    string
		from    *nettest.Machine
		to      netip.Addr
		tcp     int
		size    int // of datagrams
		learned int
	}{
		{"too large for the own host", f.there, f.here.Addr, tcpPort, 4000, fabricMTU},
	} {
		seen := nettest.Get[payload.PathMTU](t)(nettest.Probe[payload.PathMTU](ctx, row.from, "path-mtu", "-timeout", nettest.Slow(12*time.Second).String(), "-size", strconv.Itoa(row.size),
			"-bulk", strconv.Itoa(bulk), "-tcp", strconv.Itoa(row.tcp), row.to.String()))
		want := payload.PathMTU{Device: 9000, Before: 9000, After: row.learned, Refused: true, Delivered: true, Bulk: bulk}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

// testNowhere: what is for a host that does not exist stays off the fabric.
func testNowhere(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	fields, _ := sixpn.Parse(f.here.Addr)
	nobody := sixpn.MachineAddr(fields.Network, fields.Host+1000, 1)
	capture := nettest.Get[*nettest.Capture](t)(f.Underlay.Capture())
	miss(ctx, t, f.here, nobody)
	reach(ctx, t, f.here, f.there.Addr)
	nettest.Must(t, capture.Close())
	seen := map[netip.Prefix]int{}
	for _, frame := range capture.Frames() {
		if len(frame.Data) >= 54 {
			to := netip.AddrFrom16([16]byte(frame.Data[38:54]))
			seen[netip.PrefixFrom(to, 48).Masked()]++
		}
	}
	if n := seen[(fields.Host + 1000).MeshPrefix()]; n > 0 {
		t.Errorf("%d packets to a host that does not exist are on the fabric", n)
	}
	if seen[(fields.Host+1).MeshPrefix()] == 0 {
		t.Errorf("no packet to the other host is on the fabric: %v", seen)
	}
}

// TestNativeKilledAgents: each agent in turn is killed while Machines of both hosts talk,
// and nothing is lost.
func TestNativeKilledAgents(t *testing.T) {
	ctx := nettest.Context(t)
	testKilledAgents(ctx, t, startNative(ctx, t, nettest.FleetConfig{Native: true}))
}

// TestNativeForged: of what somebody on the fabric makes up, the router lets in only what
// a Machine of some other host could have sent.
func TestNativeForged(t *testing.T) {
	ctx := nettest.Context(t)
	f := startNative(ctx, t, nettest.FleetConfig{Native: true})
	f.org(ctx, t, "rival")
	const port = 40002
	heard := listen(t, f.here, port)
	here, _ := sixpn.Parse(f.here.Addr)
	there, _ := sixpn.Parse(f.there.Addr)
	vip := nettest.Get[netip.Addr](t)(f.Hosts[0].AllocateVIP(ctx, "acme-here", ""))
	rival := nettest.Get[*nettest.Machine](t)(f.Hosts[0].Run(ctx, "rival-here", nettest.Options{}, f.Hosts[0].Payload("idle")...))
	nettest.Must(t, f.Settle(ctx))
	other, _ := sixpn.Parse(rival.Addr)
	stranger := netip.MustParseAddr("2001:db8:bad::1")
	for _, row := range []struct {
		name     string
		from, to netip.Addr // as Machines know them
		reason   string     // "": it arrives
	}{
		{"as the other host", f.there.Addr, f.here.Addr, ""},
		{"as the receiver's own host", sixpn.MachineAddr(here.Network, here.Host, there.Machine+100), f.here.Addr, "spoofed_source"},
		{"as a reserved host", sixpn.VIPAddr(here.Network, 7), f.here.Addr, "spoofed_source"},
		{"as another network", sixpn.MachineAddr(other.Network, there.Host, 9), f.here.Addr, "other_network"},
		{"as nobody of ours", stranger, f.here.Addr, "spoofed_source"},
		{"to a Flycast address", f.there.Addr, vip, "unknown_destination"},
		{"to the resolver", f.there.Addr, sixpn.NetworkDNS(here.Network), "unknown_destination"},
		{"to another host", f.there.Addr, sixpn.MachineAddr(here.Network, here.Host+500, 1), "other_host"},
		{"to no Machine", f.there.Addr, sixpn.MachineAddr(here.Network, here.Host, 4000), "no_machine"},
		{"as the other host again", f.there.Addr, f.here.Addr, ""},
	} {
		before := nettest.Get[api.Status](t)(f.Hosts[0].Status(ctx))
		for range probes {
			nettest.Must(t, f.Hosts[0].Forge(udpPacket(t, row.from, row.to, port, row.name)))
		}
		if row.reason == "" {
			nettest.Must(t, heard.wait(ctx, row.name, probes))
			continue
		}
		nettest.Must(t, nettest.Eventually(ctx, row.name+" is dropped", func(ctx context.Context) error {
			after, err := f.Hosts[0].Status(ctx)
			if n := dropsOf(after, row.reason) - dropsOf(before, row.reason); err == nil && n != probes {
				err = fmt.Errorf("%d packets are dropped as %s, expected %d; by all reasons %+v", n, row.reason, probes, after.Drops)
			}
			return err
		}))
		if n := heard.count(row.name); n > 0 {
			t.Errorf("%d packets %s have arrived", n, row.name)
		}
	}
}

func dropsOf(s api.Status, reason string) uint64 {
	for _, d := range s.Drops {
		if d.Reason == reason {
			return d.Packets
		}
	}
	return 0
}

// udpPacket is a datagram as it is on the fabric, where network and host have changed
// places.
func udpPacket(t *testing.T, from, to netip.Addr, port uint16, content string) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: layers.IPProtocolUDP, SrcIP: sixpn.Rotate(from).AsSlice(), DstIP: sixpn.Rotate(to).AsSlice()}
	udp := &layers.UDP{SrcPort: 4000, DstPort: layers.UDPPort(port)}
	nettest.Must(t, udp.SetNetworkLayerForChecksum(ip))
	buffer := gopacket.NewSerializeBuffer()
	nettest.Must(t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, udp, gopacket.Payload(content)))
	return buffer.Bytes()
}

// listener counts datagrams inside a Machine by what they say.
type listener struct{ heard chan string }

func listen(t *testing.T, m *nettest.Machine, port int) *listener {
	t.Helper()
	inside, err := m.Namespace()
	nettest.Must(t, err)
	defer inside.Close()
	l := &listener{make(chan string, 1000)}
	nettest.Must(t, inside.Do(func() error {
		socket, err := net.ListenPacket("udp6", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			return err
		}
		t.Cleanup(func() { socket.Close() })
		go func() {
			for buffer := make([]byte, 2048); ; {
				n, _, err := socket.ReadFrom(buffer)
				if err != nil {
					return
				}
				l.heard <- string(buffer[:n])
			}
		}()
		return nil
	}))
	return l
}

// count takes what was heard so far.
func (l *listener) count(what string) (n int) {
	for {
		select {
		case text := <-l.heard:
			if text == what {
				n++
			}
		default:
			return n
		}
	}
}

func (l *listener) wait(ctx context.Context, what string, want int) error {
	n := 0
	return nettest.Eventually(ctx, what+" arrives", func(context.Context) error {
		if n += l.count(what); n != want {
			return fmt.Errorf("%d of %d datagrams arrived", n, want)
		}
		return nil
	})
}

// TestMeshModes: a fleet goes from one mode to the other and back, and leaves nothing of
// the mode before; in between the two hosts say why they do not reach each other.
func TestMeshModes(t *testing.T) {
	ctx := nettest.Context(t)
	f := startNative(ctx, t, nettest.FleetConfig{})
	restart := func(h *nettest.Host, mode string) {
		t.Helper()
		nettest.Must(t, h.StopAgent(ctx))
		nettest.Must(t, h.StartAgent(ctx, "--mesh", mode))
	}
	says := func(want string) {
		t.Helper()
		for _, h := range f.Hosts {
			nettest.Must(t, nettest.Eventually(ctx, fmt.Sprintf("host %s says %q", h.Name, want), func(ctx context.Context) error {
				status, err := h.Status(ctx)
				if err == nil && (!strings.Contains(status.Agent.Message, want) || want == "" && status.Agent.Message != "") {
					err = fmt.Errorf("it says %q", status.Agent.Message)
				}
				return err
			}))
		}
	}
	reach(ctx, t, f.here, f.there.Addr)
	for _, mode := range []string{"native", "wireguard"} {
		restart(f.Hosts[0], mode)
		says("start every agent of the fleet with the same --mesh")
		miss(ctx, t, f.here, f.there.Addr)
		restart(f.Hosts[1], mode)
		says("")
		nettest.Must(t, f.Meet(ctx))
		nettest.Must(t, f.Settle(ctx))
		reach(ctx, t, f.here, f.there.Addr)
		reach(ctx, t, f.there, f.here.Addr)
		for _, h := range f.Hosts {
			for what, there := range leftOf(t, h) {
				if there != strings.HasPrefix(what, mode) {
					t.Errorf("host %s in mode %s: %s is there: %v", h.Name, mode, what, there)
				}
			}
		}
	}
}

// leftOf says what a host has of each mode.
func leftOf(t *testing.T, h *nettest.Host) map[string]bool {
	t.Helper()
	routes := nettest.Get[[]netlink.Route](t)(h.HostRoutes())
	left := map[string]bool{"native: routes": len(routes) > 0, "native: rules": false}
	nettest.Must(t, h.Do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V6)
		for _, rule := range rules {
			if rule.Dst != nil && rule.Dst.String() == "fdaa::/16" {
				left["native: rules"] = true
			}
		}
		if err != nil {
			return err
		}
		_, err = netlink.LinkByName(wireguard.DeviceName(h.Name))
		left["wireguard: device"] = err == nil
		return nil
	}))
	_, err := os.Stat("/var/run/wireguard/" + wireguard.DeviceName(h.Name) + ".sock")
	left["wireguard: engine"] = !errors.Is(err, os.ErrNotExist)
	seen := nettest.Get[bool](t)(h.UplinkRouted())
	left["native: program"] = seen
	return left
}
