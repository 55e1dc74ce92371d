package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/netns"
)

// TestNativeReceiveOffload: who is inside a Machine takes from its device what XDP needs to
// hand it frames. It goes on to have its packets, by tcx, also with the next agent; and
// however often that is done its host has to do something about it once.
func TestNativeReceiveOffload(t *testing.T) {
	ctx := nettest.Context(t)
	// Nothing is found by looking from time to time.
	f := startNative(ctx, t, nettest.FleetConfig{Native: true, Host: nettest.Config{AgentFlags: []string{"--repair-interval", "1h"}}})
	const times = 50
	machines := map[string]*nettest.Machine{}
	for name, do := range map[string]func(m *nettest.Machine) error{
		"off": func(m *nettest.Machine) error { return inside(m, receiveOffload(false)) },
		"off and on again and again": func(m *nettest.Machine) error {
			return inside(m, func() error {
				for i := range times {
					if err := receiveOffload(i%2 == 1)(); err != nil {
						return err
					}
				}
				return nil
			})
		},
		"off while the device is down": func(m *nettest.Machine) error { return downAndUp(ctx, f.Hosts[1], m, receiveOffload(false)) },
	} {
		m := f.server(ctx, t, 1, "acme-there")
		machines[name] = m
		reach(ctx, t, f.here, m.Addr)
		nettest.Must(t, do(m))
		nettest.Must(t, nettest.Eventually(ctx, name+": it is reached", func(ctx context.Context) error {
			got, err := nettest.Probe[payload.Connections](ctx, f.here, "connect", "-count", "1", "-timeout", nettest.Slow(time.Second).String(), on(m.Addr, tcpPort))
			if err == nil && got.OK != 1 {
				err = fmt.Errorf("%v", got.Errors)
			}
			return err
		}))
		reach(ctx, t, f.here, m.Addr)
		reach(ctx, t, f.here, f.there.Addr)
	}
	log := nettest.Get[[]byte](t)(os.ReadFile(f.Hosts[1].LogPath()))
	if n := strings.Count(string(log), "takes no frames of XDP any more"); n != len(machines) {
		t.Errorf("devices were taken from XDP %d times, expected once for each of %d Machines", n, len(machines))
	}
	nettest.Must(t, f.Hosts[1].KillAgent())
	nettest.Must(t, f.Hosts[1].StartAgent(ctx))
	for name, m := range machines {
		t.Log(name)
		reach(ctx, t, f.here, m.Addr)
	}
}

func inside(m *nettest.Machine, do func() error) error {
	namespace, err := m.Namespace()
	if err != nil {
		return err
	}
	defer namespace.Close()
	return namespace.Do(do)
}

func receiveOffload(on bool) func() error {
	return func() error { return netns.SetFeature(machine.GuestDevice, netns.GRO, on) }
}

// downAndUp does something inside while the Machine's device is down, which its host has
// seen, and gives it back what it loses with that.
func downAndUp(ctx context.Context, h *nettest.Host, m *nettest.Machine, do func() error) error {
	device := func() (netlink.Link, error) { return netlink.LinkByName(machine.GuestDevice) }
	err := inside(m, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+machine.GuestDevice+"/keep_addr_on_down", []byte("1"), 0); err != nil {
			return err
		}
		eth0, err := device()
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(eth0)
	})
	if err != nil {
		return err
	}
	if err := nettest.Eventually(ctx, "the host sees that the device is down", func(context.Context) error {
		return h.Do(func() error {
			outside, err := netlink.LinkByName(machine.DeviceName(m.ID))
			// The kernel tells of it when it changes this, and not yet when the carrier goes.
			if err == nil && outside.Attrs().OperState == netlink.OperUp {
				err = fmt.Errorf("%s is %v", outside.Attrs().Name, outside.Attrs().OperState)
			}
			return err
		})
	}); err != nil {
		return err
	}
	return inside(m, func() error {
		eth0, err := device()
		if err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(eth0); err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{
			LinkIndex: eth0.Attrs().Index, Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, Gw: sixpn.Gateway.AsSlice(), Src: m.Addr.AsSlice(),
		})
	})
}
