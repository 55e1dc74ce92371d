package netns_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/netns"
)

func TestSetupPrivateTakesOverWhatIsThere(t *testing.T) {
	home, config := newHost(t)
	first := setup(t, config)
	state := func() (up bool) {
		t.Helper()
		if err := home.Do(func() error {
			link, err := netlink.LinkByName(first.HostSide().Name)
			if err == nil {
				up = link.Attrs().Flags&net.FlagUp != 0
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return up
	}
	if state() {
		t.Fatal("the host side is up; the loader must be the one who raises it")
	}
	outside(t, home, first)
	second := setup(t, config)
	if first.HostSide().Ifindex != second.HostSide().Ifindex || first.InsideSide().Ifindex != second.InsideSide().Ifindex ||
		first.InsideSide().MAC.String() != second.InsideSide().MAC.String() {
		t.Errorf("the pair was made again: %v %v, expected %v %v", second.HostSide(), second.InsideSide(), first.HostSide(), first.InsideSide())
	}
	if !state() {
		t.Error("taking over set the host side down")
	}

	for _, damage := range []struct {
		name string
		do   func() error
	}{
		{"the device inside is down", func() error {
			return second.Do(func() error { return onLink(netns.Inside, netlink.LinkSetDown) })
		}},
		{"the rule is gone", func() error {
			return second.Do(func() error {
				rule := netlink.NewRule()
				rule.Family, rule.IifName, rule.Table, rule.Priority = netlink.FAMILY_V6, netns.Inside, 100, 100
				return netlink.RuleDel(rule)
			})
		}},
		{"the pair is gone", func() error {
			return home.Do(func() error { return onLink(second.HostSide().Name, netlink.LinkDel) })
		}},
		{"the namespace is gone", func() error { return netns.Delete(config.Path) }},
	} {
		t.Run(damage.name, func(t *testing.T) {
			if err := damage.do(); err != nil {
				t.Fatal(err)
			}
			p := setup(t, config)
			outside(t, home, p)
			listener, err := p.Listen(t.Context(), "tcp6", "[::]:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			port := listener.Addr().(*net.TCPAddr).Port
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			conn, err := home.Dial(ctx, "tcp6", &net.TCPAddr{IP: machine.AsSlice()}, netip.AddrPortFrom(sixpn.DNS, uint16(port)).String())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		})
	}
}

func onLink(name string, do func(netlink.Link) error) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return do(link)
}

func TestSetupPrivateRefusesAnothersDevice(t *testing.T) {
	home, config := newHost(t)
	if err := home.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = netns.HostDevice(config.Name)
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "other"})
	}); err != nil {
		t.Fatal(err)
	}
	if p, err := netns.SetupPrivate(t.Context(), config); err == nil {
		_ = p.Close()
		t.Fatal("a device that is not this agent's was taken")
	}
}

func TestDeletePrivateLeavesNothing(t *testing.T) {
	home, config := newHost(t)
	p := setup(t, config)
	removed, err := netns.DeletePrivate(config)
	if err != nil || len(removed) != 2 {
		t.Fatalf("removed %q, error %v, expected a device and a namespace", removed, err)
	}
	if _, err := os.Lstat(config.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pin is still there: %v", err)
	}
	if err := home.Do(func() error { return onLink(p.HostSide().Name, func(netlink.Link) error { return nil }) }); err == nil {
		t.Error("the device is still there")
	}
	if removed, err := netns.DeletePrivate(config); err != nil || len(removed) != 0 {
		t.Errorf("the second time: removed %q, error %v, expected nothing", removed, err)
	}
}
