package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/netns"
)

// The routes of a native mesh, one for each other host, are in a table that only packets
// of this host's own look at. The main table is for what the host forwards too: there
// they would carry whatever a container or another network of the host sends, as whoever
// it likes, to the Machines of other hosts.
const (
	routeTable    = 51821
	routeProtocol = 182 // who made a route, rtnetlink(7)
	rulePriority  = 182 // and the two after it, before those of the operator, which may have a default route
)

// hostRoute is the way to one host.
type hostRoute struct {
	prefix netip.Prefix // its own on the mesh
	via    netip.Addr   // the host itself, or the router on the way to it
	uplink int          // index of the device
}

func (r hostRoute) String() string { return fmt.Sprintf("%v via %v", r.prefix, r.via) }

func (r hostRoute) route() *netlink.Route {
	return &netlink.Route{
		Family: netlink.FAMILY_V6, Table: routeTable, Protocol: routeProtocol, LinkIndex: r.uplink,
		Dst: ipNet(r.prefix), Gw: r.via.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// routeRules have the host's own packets, and no others, look for the private range in
// the table of the mesh, then for a route that the operator has for a part of it, and
// then go nowhere. The black hole in the main table is not enough: a look-up for a device
// passes it over, and finds a default route.
func routeRules() []*netlink.Rule {
	var rules []*netlink.Rule
	for i := range 3 {
		rule := netlink.NewRule()
		rule.Family, rule.Priority = netlink.FAMILY_V6, rulePriority+i
		rule.Dst, rule.IifName = &privateRange, "lo"
		rules = append(rules, rule)
	}
	rules[0].Table = routeTable
	rules[1].Table, rules[1].SuppressPrefixlen = unix.RT_TABLE_MAIN, sixpn.Prefix.Bits()
	rules[2].Type = unix.FR_ACT_BLACKHOLE
	return rules
}

func addRules() error {
	for _, rule := range routeRules() {
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make the rule %d for %v: %w", rule.Priority, &privateRange, err)
		}
	}
	return nil
}

func removeRules() (removed []string, err error) {
	for _, rule := range routeRules() {
		switch err := netlink.RuleDel(rule); {
		case err == nil:
			removed = append(removed, fmt.Sprintf("rule %d for %v", rule.Priority, &privateRange))
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		default:
			return removed, fmt.Errorf("remove the rule %d for %v: %w", rule.Priority, &privateRange, err)
		}
	}
	return removed, nil
}

// hostRoutes reads all routes of native meshes, by prefix, also those of other agents.
func hostRoutes() (map[netip.Prefix]hostRoute, error) {
	routes, err := netns.Whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: routeTable, Protocol: routeProtocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("list the routes of table %d: %w", routeTable, err)
	}
	found := map[netip.Prefix]hostRoute{}
	for _, r := range routes {
		via, _ := netip.AddrFromSlice(r.Gw)
		if r.Dst == nil {
			continue
		}
		address, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		prefix := netip.PrefixFrom(address, bits)
		found[prefix] = hostRoute{prefix, via, r.LinkIndex}
	}
	return found, nil
}

// wayTo finds the way to another host by its address on the underlay.
func wayTo(host sixpn.Host, endpoint netip.Addr, uplink int) (hostRoute, error) {
	ways, err := netlink.RouteGetWithOptions(endpoint.AsSlice(), &netlink.RouteGetOptions{OifIndex: uplink})
	if err == nil && (len(ways) == 0 || ways[0].LinkIndex != uplink) {
		err = errors.New("it is by another device")
	}
	if err != nil {
		return hostRoute{}, fmt.Errorf("find the way to host %v at %v by the uplink: %w", host, endpoint, err)
	}
	via := endpoint
	if gateway, ok := netip.AddrFromSlice(ways[0].Gw); ok && gateway.Is6() {
		via = gateway
	}
	return hostRoute{host.MeshPrefix(), via, uplink}, nil
}

// routedAlready says whether the host has a route of its own for a host's prefix: from
// the operator, or a routing protocol. It asks as for a packet from the uplink, which
// does not meet the rule of the mesh.
func routedAlready(prefix netip.Prefix, uplink int) bool {
	ways, err := netlink.RouteGetWithOptions(prefix.Addr().AsSlice(), &netlink.RouteGetOptions{IifIndex: uplink, FIBMatch: true})
	if err != nil || len(ways) == 0 || ways[0].Dst == nil {
		return false // it meets the black hole
	}
	bits, _ := ways[0].Dst.Mask.Size()
	return bits > sixpn.Prefix.Bits()
}

// setRoutes makes the routes by an agent's uplink those that are wanted, and says what it
// changed. Those of another agent's uplink stay, and so do those to keep.
func setRoutes(agent string, want []hostRoute, keep map[netip.Prefix]bool) (changed []string, err error) {
	if err := addRules(); err != nil {
		return nil, err
	}
	have, err := hostRoutes()
	if err != nil {
		return nil, err
	}
	var errs []error
	wanted := map[netip.Prefix]bool{}
	for _, w := range want {
		wanted[w.prefix] = true
		h, found := have[w.prefix]
		switch {
		case found && h == w:
			continue
		case found && h.uplink != w.uplink && isOthers(h.uplink, agent):
			errs = append(errs, fmt.Errorf("another agent of this host has a route for %v already", w.prefix))
			continue
		}
		if err := netlink.RouteReplace(w.route()); err != nil {
			errs = append(errs, fmt.Errorf("make the route %v: %w", w, err))
			continue
		}
		changed = append(changed, w.String())
	}
	for prefix, h := range have {
		if !wanted[prefix] && !keep[prefix] && !isOthers(h.uplink, agent) {
			gone, err := deleteRoute(h)
			errs = append(errs, err)
			changed = append(changed, gone...)
		}
	}
	slices.Sort(changed)
	return changed, errors.Join(errs...)
}

func deleteRoute(r hostRoute) (removed []string, err error) {
	if err := netlink.RouteDel(r.route()); err != nil {
		if errors.Is(err, unix.ESRCH) { // it went with its device
			return nil, nil
		}
		return nil, fmt.Errorf("remove the route %v: %w", r, err)
	}
	return []string{"route " + r.String()}, nil
}

// isOthers says whether a device is the uplink of another agent. One that is nobody's
// has routes that nobody needs.
func isOthers(ifindex int, agent string) bool {
	seen, err := loader.Look(uint32(ifindex))
	return err == nil && seen.Router != "" && seen.Router != agent
}

// removeRoutes removes the routes by an agent's uplinks, and the rules with the last one
// in this network namespace.
func removeRoutes(agent string) (removed []string, err error) {
	have, err := hostRoutes()
	if err != nil {
		return nil, err
	}
	left := len(have)
	for _, h := range have {
		if isOthers(h.uplink, agent) {
			continue
		}
		gone, err := deleteRoute(h)
		if err != nil {
			return removed, err
		}
		removed = append(removed, gone...)
		left--
	}
	slices.Sort(removed)
	if left > 0 {
		return removed, nil
	}
	rules, err := removeRules()
	return append(removed, rules...), err
}
