package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	miekg "github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/dns"
	"github.com/sixpn/sixpn/netns"
)

// resolvers asks each resolver for the servers of the root, which every one knows.
func (c *Config) resolvers(ctx context.Context) []Finding {
	const check = "resolvers"
	names := c.Upstreams
	if len(names) == 0 {
		config, err := miekg.ClientConfigFromFile(c.path("etc/resolv.conf"))
		if err != nil {
			return []Finding{warn(check, "write /etc/resolv.conf, or give --upstream", "the host's resolvers cannot be read: %v", err)}
		}
		names = config.Servers
	}
	if len(names) == 0 {
		return []Finding{warn(check, "write a nameserver into /etc/resolv.conf, or give --upstream", "there is none: Machines resolve names of this router only")}
	}
	var findings []Finding
	for _, name := range names {
		upstream, err := dns.ParseUpstream(name)
		if err != nil {
			findings = append(findings, fail(check, "correct it in /etc/resolv.conf or --upstream", "%v", err))
			continue
		}
		query := new(miekg.Msg).SetQuestion(".", miekg.TypeNS)
		client := miekg.Client{Timeout: c.Timeout}
		if _, took, err := client.ExchangeContext(ctx, query, upstream.String()); err != nil {
			findings = append(findings, warn(check, "start it, let this host reach it, or give another with --upstream", "%s does not answer: %v", upstream, err))
		} else {
			findings = append(findings, ok(check, "%s answers within %d ms", upstream, took.Milliseconds()))
		}
	}
	return findings
}

// addresses looks for addresses of private networks on the host itself.
func (c *Config) addresses() []Finding {
	const check = "addresses"
	var found []string
	links, err := netns.Whole(netlink.LinkList)
	if err != nil {
		return []Finding{warn(check, useSudo, "the devices cannot be listed: %v", err)}
	}
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
		addresses, err := netns.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V6) })
		if err != nil {
			continue // the device is gone
		}
		for _, address := range addresses {
			if inside(address.IPNet) {
				found = append(found, fmt.Sprintf("address %s on %s", address.IPNet, link.Attrs().Name))
			}
		}
	}
	routes, err := netns.Whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V6) })
	if err != nil {
		return []Finding{warn(check, useSudo, "the routes cannot be listed: %v", err)}
	}
	for _, route := range routes {
		// One that leads nowhere, such as the agent's own, is as good as none.
		if route.Dst != nil && inside(route.Dst) && route.Type == unix.RTN_UNICAST {
			found = append(found, fmt.Sprintf("route %s by %s", route.Dst, names[route.LinkIndex]))
		}
	}
	if len(found) > 0 {
		return []Finding{warn(check, "remove it, unless it leads to another router of private networks on purpose",
			"the host has %s, of %s, which are the addresses of Machines", strings.Join(slices.Compact(found), ", "), sixpn.Prefix)}
	}
	return []Finding{ok(check, "the host has none of %s", sixpn.Prefix)}
}

// inside is whether a prefix is of private networks.
func inside(prefix *net.IPNet) bool {
	address, ok := netip.AddrFromSlice(prefix.IP)
	return ok && sixpn.Prefix.Contains(address)
}

// metrics looks whether the address of the metrics can be listened on. A running
// agent has it already.
func (c *Config) metrics(ctx context.Context, running bool) []Finding {
	const check = "metrics port"
	if c.MetricsListen == "off" || c.MetricsListen == "" {
		return []Finding{ok(check, "off")}
	}
	if running {
		connection, err := (&net.Dialer{Timeout: c.Timeout}).DialContext(ctx, "tcp", c.MetricsListen)
		if err != nil {
			return []Finding{warn(check, "say the address that the agent was given, with --metrics-listen", "the agent does not listen there: %v", err)}
		}
		connection.Close()
		return []Finding{ok(check, "%s is listened on", c.MetricsListen)}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.MetricsListen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return []Finding{fail(check, "end the other program, or give the agent another address with --metrics-listen", "another program listens on %s", c.MetricsListen)}
	case err != nil:
		return []Finding{fail(check, "give the agent another address with --metrics-listen", "%v", err)}
	}
	listener.Close()
	return []Finding{ok(check, "%s is free", c.MetricsListen)}
}

// leftovers looks for what agents left in the kernel that do not run now.
func (c *Config) leftovers(running bool) []Finding {
	const check = "leftovers"
	names := map[string][]string{}
	if !c.root() {
		return []Finding{warn(check, useSudo, "pins cannot be seen by user %d", c.Euid)}
	}
	pins, err := os.ReadDir(c.PinDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return []Finding{warn(check, useSudo, "%v", err)}
	}
	for _, pin := range pins {
		names[pin.Name()] = append(names[pin.Name()], "pins in "+filepath.Join(c.PinDir, pin.Name()))
	}
	links, err := netns.Whole(netlink.LinkList)
	if err != nil {
		return []Finding{warn(check, useSudo, "the devices cannot be listed: %v", err)}
	}
	for _, link := range links {
		if name, ok := owner(link.Attrs().Alias); ok {
			names[name] = append(names[name], "device "+link.Attrs().Name)
		}
	}
	var findings []Finding
	for name, what := range names {
		if name == c.Name && running || listens(filepath.Join(c.RunDir, name+".sock")) {
			continue
		}
		findings = append(findings, warn(check, fmt.Sprintf("start it again, or remove them with: sixpn agent reset --name %s", name),
			"agent %q does not listen in %s, and what it made is still there: %s", name, c.RunDir, strings.Join(what, ", ")))
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	if len(findings) == 0 {
		findings = append(findings, ok(check, "none"))
	}
	return findings
}

// owner is the agent that made a device, by its alias sixpn:AGENT:….
func owner(alias string) (string, bool) {
	rest, ours := strings.CutPrefix(alias, "sixpn:")
	name, _, whole := strings.Cut(rest, ":")
	return name, ours && whole && name != ""
}

func listens(socket string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: socket}) == nil
}
