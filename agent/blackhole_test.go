package agent_test

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/internal/nettest"
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
