package agent_test

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

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// TestPrivateRangeIsClosed: what comes from the underlay for an address of a Machine,
// or leaves the host's own processes for one, is forwarded nowhere, although the host
// forwards and has a default route.
func TestPrivateRangeIsClosed(t *testing.T) {
	ctx := nettest.Context(t)
	underlay := nettest.Get[*nettest.Underlay](t)(nettest.NewUnderlay(0))
	t.Cleanup(func() { nettest.Must(t, underlay.Close()) })
	h := nettest.Get[*nettest.Host](t)(nettest.NewHost(nettest.Config{Underlay: underlay}))
	t.Cleanup(func() { nettest.Must(t, h.Close()) })
	var uplink netlink.Link
	nettest.Must(t, h.Do(func() (err error) {
		if uplink, err = netlink.LinkByName(nettest.Uplink); err != nil {
			return err
		}
		all := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		err = netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.ParseIP("fe80::2"), LinkIndex: uplink.Attrs().Index})
		return errors.Join(err, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	}))
	way := func(o *netlink.RouteGetOptions) error {
		return h.Do(func() error {
			_, err := netlink.RouteGetWithOptions(net.ParseIP("fdaa:0:1:0:3:0:1:2"), o)
			return err
		})
	}
	forwarded := &netlink.RouteGetOptions{Iif: nettest.Uplink, SrcAddr: net.ParseIP("2001:db8:ffff::1")}
	for _, step := range []struct {
		name string
		do   func() error
		open bool
	}{
		{"without an agent", func() error { return nil }, true},
		{"with an agent", func() error { return h.StartAgent(ctx) }, false},
		{"after its end", h.KillAgent, false},
		{"after a reset", func() error { _, err := h.Reset(ctx); return err }, true},
	} {
		nettest.Must(t, step.do())
		for name, o := range map[string]*netlink.RouteGetOptions{"from the underlay": forwarded, "from the host": nil} {
			if err := way(o); (err == nil) != step.open || err != nil && !errors.Is(err, unix.EINVAL) {
				t.Errorf("%s, %s: %v, expected a way: %v", step.name, name, err, step.open)
			}
		}
	}
}

// TestFromTheWire: what somebody on the fabric sends straight to a live Machine, in the
// clear, arrives where packets travel like that, and nowhere where they do not, although
// the host forwards.
func TestFromTheWire(t *testing.T) {
	for _, row := range []struct {
		mode     string
		arrives  bool
		dropping string // the reason for what the router can see is forged
	}{{"wireguard", false, ""}, {"native", true, "spoofed_source"}} {
		t.Run(row.mode, func(t *testing.T) {
			ctx := nettest.Context(t)
			fleet := nettest.StartFleet(ctx, t, nettest.FleetConfig{Fabric: true, Regions: []string{"iad"}, Host: nettest.Config{AgentFlags: []string{"--mesh", row.mode}}})
			h := fleet.Hosts[0]
			nettest.Must(t, h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0) }))
			p := newPairOn(ctx, t, h)
			at, _ := sixpn.Parse(p.server.Addr)
			before, taken := echoesIn(t, p.server), receivedBy(t, h)
			const count = 10
			for _, from := range []sixpn.Host{at.Host + 1, at.Host} { // another host's Machine, and one of this host
				packet := echoOnFabric(t, sixpn.MachineAddr(at.Network, from, at.Machine+100), p.server.Addr)
				for range count {
					nettest.Must(t, h.Forge(packet))
				}
			}
			want := uint64(0)
			if row.arrives {
				want = count
			}
			nettest.Must(t, nettest.Eventually(ctx, "every packet was judged", func(ctx context.Context) error {
				// What the router leaves to the host is the host's to judge.
				if n := receivedBy(t, h) - taken; !row.arrives && n < 2*count {
					return fmt.Errorf("the host has seen %d of %d packets", n, 2*count)
				}
				if got := echoesIn(t, p.server) - before; got != want {
					return fmt.Errorf("%d packets arrived in the Machine, expected %d", got, want)
				}
				if row.dropping == "" {
					return nil
				}
				drops, err := h.Drops(ctx, row.dropping)
				if err == nil && drops != count {
					err = fmt.Errorf("%d packets are dropped as %s, expected %d", drops, row.dropping, count)
				}
				return err
			}))
		})
	}
}

// echoesIn is how many echo requests a Machine's kernel was given.
func echoesIn(t *testing.T, m *nettest.Machine) (count uint64) {
	t.Helper()
	inside := nettest.Get[*netns.Namespace](t)(m.Namespace())
	defer inside.Close()
	return counter(t, inside.Do, "snmp6", "Icmp6InEchos")
}

// receivedBy is how many IPv6 packets the host itself took from its uplink.
func receivedBy(t *testing.T, h *nettest.Host) uint64 {
	t.Helper()
	return counter(t, h.Do, "dev_snmp6/"+nettest.Uplink, "Ip6InReceives")
}

// counter reads one of the kernel's, in a file of /proc/net.
func counter(t *testing.T, do func(func() error) error, file, name string) (count uint64) {
	t.Helper()
	nettest.Must(t, do(func() error {
		content, err := os.ReadFile("/proc/thread-self/net/" + file)
		for line := range strings.Lines(string(content)) {
			if words := strings.Fields(line); len(words) == 2 && words[0] == name {
				count, err = strconv.ParseUint(words[1], 10, 64)
			}
		}
		return err
	}))
	return count
}

// echoOnFabric is an echo request as it is between hosts.
func echoOnFabric(t *testing.T, from, to netip.Addr) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: layers.IPProtocolICMPv6, SrcIP: sixpn.Rotate(from).AsSlice(), DstIP: sixpn.Rotate(to).AsSlice()}
	message := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
	nettest.Must(t, message.SetNetworkLayerForChecksum(ip))
	buffer := gopacket.NewSerializeBuffer()
	nettest.Must(t, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, message, &layers.ICMPv6Echo{Identifier: 1}))
	return buffer.Bytes()
}
