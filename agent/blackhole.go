package agent

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/netns"
)

// privateRange is sixpn.Prefix, as routes have it.
var privateRange = net.IPNet{IP: sixpn.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(sixpn.Prefix.Bits(), 128)}

// blackhole is the host's own route for the private range: what comes from the underlay
// or from the host's processes with such a destination goes nowhere. The router needs
// no route: what it forwards never meets the host's.
func blackhole() *netlink.Route {
	return &netlink.Route{
		Dst: &privateRange, Type: unix.RTN_BLACKHOLE, Family: netlink.FAMILY_V6, Table: unix.RT_TABLE_MAIN,
		// Behind a route that the operator has for a second network of their own.
		Priority: 1 << 20,
	}
}

// closePrivateRange makes that route, which all agents of this network namespace share.
func closePrivateRange() error {
	if err := netlink.RouteReplace(blackhole()); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the route blackhole %v: %w", &privateRange, err)
	}
	return nil
}

// openPrivateRange removes it with the last agent of this network namespace.
func openPrivateRange() (removed []string, err error) {
	links, err := netns.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	for _, link := range links {
		if netns.IsHostDevice(link) {
			return nil, nil
		}
	}
	switch err := netlink.RouteDel(blackhole()); {
	case err == nil:
		return []string{"route blackhole " + privateRange.String()}, nil
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT):
		return nil, nil
	default:
		return nil, fmt.Errorf("remove the route blackhole %v: %w", &privateRange, err)
	}
}
