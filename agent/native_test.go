package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// wayOf is how a host's packet to an address of another host's Machine goes, "" if
// nowhere. from is the device that it came by, "" for the host's own.
func wayOf(t *testing.T, h *nettest.Host, to netip.Addr, from string) string {
	t.Helper()
	var way string
	nettest.Must(t, h.Do(func() error {
		options := &netlink.RouteGetOptions{Iif: from}
		if from == "" {
			options = &netlink.RouteGetOptions{Oif: nettest.Uplink}
		}
		routes, err := netlink.RouteGetWithOptions(to.AsSlice(), options)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETUNREACH) {
			return nil
		}
		if err != nil || len(routes) != 1 {
			return fmt.Errorf("way to %v: %v, %w", to, routes, err)
		}
		way = routes[0].Gw.String()
		return nil
	}))
	return way
}

// awaitWay waits until the host's own packets to an address go by a gateway.
func awaitWay(ctx context.Context, t *testing.T, h *nettest.Host, to netip.Addr, by netip.Addr) {
	t.Helper()
	want := ""
	if by.IsValid() {
		want = by.String()
	}
	nettest.Must(t, nettest.Eventually(ctx, fmt.Sprintf("packets to %v go by %q", to, want), func(context.Context) error {
		if got := wayOf(t, h, to, ""); got != want {
			return fmt.Errorf("they go by %q", got)
		}
		return nil
	}))
}

// onMesh is an address of a host's Machine as it is on the mesh.
func onMesh(ctx context.Context, t *testing.T, h *nettest.Host) netip.Addr {
	t.Helper()
	status := nettest.Get[api.Status](t)(h.Status(ctx))
	return netip.MustParseAddr(fmt.Sprintf("fdaa:%s:0:3:0:1:2", status.Agent.Host))
}

// TestNativeRoutes: a host has a route for each other host, by the way that its own
// routes say, for itself alone; it goes with the host and with the agent's mode.
func TestNativeRoutes(t *testing.T) {
	ctx := nettest.Context(t)
	fleet := nettest.StartFleet(ctx, t, nettest.FleetConfig{Native: true, Host: nettest.Config{AgentFlags: []string{"--repair-interval", "1s"}}})
	near, far := fleet.Hosts[0], fleet.Hosts[1]
	router := func(h *nettest.Host) netip.Addr {
		a := h.Uplink.V6.As16()
		a[14], a[15] = 0xff, 0xff
		return netip.AddrFrom16(a)
	}
	there := onMesh(ctx, t, far)
	awaitWay(ctx, t, near, there, router(near))
	awaitWay(ctx, t, far, onMesh(ctx, t, near), router(far))
	for name, to := range map[string]netip.Addr{"of another host": there, "of no host": netip.MustParseAddr("fdaa:0:ffff:0:3:0:1:2")} {
		if way := wayOf(t, near, to, nettest.Uplink); way != "" {
			t.Errorf("a forwarded packet to a Machine %s goes by %s", name, way)
		}
	}
	if way := wayOf(t, near, netip.MustParseAddr("fdaa:0:ffff:0:3:0:1:2"), ""); way != "" {
		t.Errorf("a packet to a Machine of no host goes by %s", way)
	}
	if status := nettest.Get[api.Status](t)(near.Status(ctx)); status.Mesh.Mode != api.MeshStatusModeNative || status.Mesh.Device != nettest.Uplink || status.Mesh.MTU != 1500 {
		t.Errorf("the mesh is %+v", status.Mesh)
	}

	// Another router on the way to the far host.
	other := netip.MustParseAddr("fe80::99")
	change := func(do func(*netlink.Route) error, prefix string, by netip.Addr) {
		t.Helper()
		nettest.Must(t, near.Do(func() error {
			device, err := netlink.LinkByName(nettest.Uplink)
			if err != nil {
				return err
			}
			_, to, err := net.ParseCIDR(prefix)
			if err != nil {
				return err
			}
			return do(&netlink.Route{Dst: to, Gw: by.AsSlice(), LinkIndex: device.Attrs().Index})
		}))
	}
	own := fmt.Sprintf("%s/128", far.Uplink.V6)
	change(netlink.RouteAdd, own, other)
	awaitWay(ctx, t, near, there, other)
	change(netlink.RouteDel, own, other)
	awaitWay(ctx, t, near, there, router(near))

	// The operator's own route for the host's prefix.
	nettest.Must(t, nettest.Eventually(ctx, "the operator's route counts alone", func(context.Context) error {
		prefix := netip.PrefixFrom(there, 48).Masked().String()
		change(netlink.RouteReplace, prefix, other)
		defer change(netlink.RouteDel, prefix, other)
		return nettest.Eventually(ctx, "the agent's route goes", func(context.Context) error {
			if routes, err := near.HostRoutes(); err != nil || len(routes) > 0 {
				return errors.Join(err, fmt.Errorf("there are %v", routes))
			}
			if way := wayOf(t, near, there, ""); way != other.String() {
				return nettest.Final(fmt.Errorf("packets go by %q", way))
			}
			return nil
		})
	}))
	awaitWay(ctx, t, near, there, router(near))

	// It needs no agent, and the next one finds it.
	nettest.Must(t, near.KillAgent())
	awaitWay(ctx, t, near, there, router(near))
	nettest.Must(t, near.StartAgent(ctx))
	if rules := rulesOf(t, near); len(rules) != 3 {
		t.Errorf("after another start there are the rules %v, expected 3", rules)
	}

	nettest.Must(t, fleet.Remove(ctx, far))
	awaitWay(ctx, t, near, there, netip.Addr{})
	nettest.Must(t, near.KillAgent())
	said := nettest.Get[string](t)(near.Reset(ctx))
	if !strings.Contains(said, "rule 182") {
		t.Errorf("reset does not say that the rule went: %s", said)
	}
	if rules := rulesOf(t, near); len(rules) > 0 {
		t.Errorf("the rules %v stay", rules)
	}
}

// rulesOf are the rules of a host for the private range.
func rulesOf(t *testing.T, h *nettest.Host) (found []netlink.Rule) {
	t.Helper()
	nettest.Must(t, h.Do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V6)
		for _, rule := range rules {
			if rule.Dst != nil && rule.Dst.String() == "fdaa::/16" {
				found = append(found, rule)
			}
		}
		return err
	}))
	return found
}

// TestNativeOnLink: hosts that are on one link need no router.
func TestNativeOnLink(t *testing.T) {
	ctx := nettest.Context(t)
	fleet := nettest.StartFleet(ctx, t, nettest.FleetConfig{IPv6: true, Host: nettest.Config{AgentFlags: []string{"--mesh", "native"}}})
	for i, h := range fleet.Hosts {
		other := fleet.Hosts[1-i]
		awaitWay(ctx, t, h, onMesh(ctx, t, other), other.Uplink.V6)
	}
}
