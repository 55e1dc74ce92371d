package demo

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// Ports of the world's servers, and of the VIPs that lead to them.
const (
	tcpPort = 8080
	udpPort = 9000
	vipPort = 80 // TCP; UDP has the same on both sides
)

// world is what the demo is about.
//
//	org acme:  web (two servers behind a VIP), client, solo (a client of itself)
//	           fleet (names: two regions, two process groups, one Machine stopped)
//	           away (servers on the second host)
//	org rival: spy (the attacker), vault (a server), outpost (one on the second host)
//
// The second host is in another region, and joined by an invitation of the first. Other
// apps come and go with the checks that need them.
type world struct {
	fleet    *nettest.Fleet
	host     *nettest.Host // the first
	upstream *upstream     // the resolver for the rest of the world

	executable string       // of the agents, see Config
	fabric     *nativeWorld // nil: no check has needed it yet

	web               []*nettest.Machine
	client, big, solo *nettest.Machine // big: like client, with a device of 9000 bytes
	spy, vault        *nettest.Machine
	near, far, rested *nettest.Machine // of app fleet
	away, awayBig     *nettest.Machine // awayBig: with a device of 9000 bytes
	outpost           *nettest.Machine
	webVIP, soloVIP   netip.Addr
}

const (
	orgAcme, orgRival = "acme", "rival"

	appWeb, appClient, appSolo = "web", "client", "solo"
	appSpy, appVault           = "spy", "vault"
	appFleet, appAway          = "fleet", "away"
	appOutpost                 = "outpost"

	homeRegion, awayRegion = "iad", "fra"

	bigMTU = 9000
)

// services of every server: one TCP and one UDP port.
var services = []string{
	fmt.Sprintf("%d:%d/tcp", vipPort, tcpPort),
	fmt.Sprintf("%d:%d/udp", udpPort, udpPort),
}

// build returns a world also with an error, for it to be closed.
func build(ctx context.Context, c Config) (*world, error) {
	fleet, err := nettest.NewFleet(nettest.FleetConfig{Host: nettest.Config{Prefix: "sixpn-demo-", Executable: c.Executable}})
	if err != nil {
		return nil, err
	}
	w := &world{fleet: fleet, executable: c.Executable}
	host, err := fleet.NewHost(homeRegion)
	if err != nil {
		return w, err
	}
	w.host = host
	if w.upstream, err = startUpstream(host); err != nil {
		return w, err
	}
	if err := w.startAgent(ctx); err != nil {
		return w, err
	}
	second, err := fleet.NewHost(awayRegion)
	if err != nil {
		return w, err
	}
	if err := fleet.Join(ctx, second); err != nil {
		return w, err
	}
	if err := fleet.Meet(ctx); err != nil {
		return w, err
	}
	for _, org := range []struct {
		name string
		apps []string
	}{{orgAcme, []string{appWeb, appClient, appSolo, appFleet, appAway}}, {orgRival, []string{appSpy, appVault, appOutpost}}} {
		if err := host.CreateOrg(ctx, org.name); err != nil {
			return w, err
		}
		for _, app := range org.apps {
			if err := host.CreateApp(ctx, app, org.name); err != nil {
				return w, err
			}
		}
	}
	w.web = make([]*nettest.Machine, 2)
	group, groupCtx := errgroup.WithContext(ctx)
	runOn := func(host *nettest.Host, into **nettest.Machine, app string, options nettest.Options, command ...string) {
		group.Go(func() (err error) {
			if command[0] == "serve" {
				options.Services = services
			}
			*into, err = host.Run(groupCtx, app, options, host.Payload(command...)...)
			return err
		})
	}
	run := func(into **nettest.Machine, app string, options nettest.Options, command ...string) {
		runOn(host, into, app, options, command...)
	}
	run(&w.web[0], appWeb, nettest.Options{Name: "web-1"}, server()...)
	run(&w.web[1], appWeb, nettest.Options{Name: "web-2"}, server()...)
	run(&w.client, appClient, nettest.Options{Name: "client-1"}, "idle")
	run(&w.big, appClient, nettest.Options{Name: "client-big", MTU: bigMTU}, "idle")
	run(&w.solo, appSolo, nettest.Options{Name: "solo-1"}, server()...)
	run(&w.spy, appSpy, nettest.Options{Name: "spy-1"}, "idle")
	run(&w.vault, appVault, nettest.Options{Name: "vault-1"}, server()...)
	runOn(second, &w.away, appAway, nettest.Options{Name: "away-1"}, server()...)
	runOn(second, &w.awayBig, appAway, nettest.Options{Name: "away-big", MTU: bigMTU}, server()...)
	runOn(second, &w.outpost, appOutpost, nettest.Options{Name: "outpost-1"}, server()...)
	for _, member := range fleetMachines {
		run(member.of(w), appFleet, member.options, "idle")
	}
	if err := group.Wait(); err != nil {
		return w, err
	}
	if err := w.rest(ctx); err != nil {
		return w, err
	}
	if w.webVIP, err = host.AllocateVIP(ctx, appWeb, ""); err != nil {
		return w, err
	}
	w.soloVIP, err = host.AllocateVIP(ctx, appSolo, "")
	return w, err
}

// server is the payload of every server. After its stop signal it goes on for a
// while, as one that finishes its work, and then is gone without a farewell.
func server() []string {
	return []string{"serve", "-tcp", fmt.Sprint(tcpPort), "-udp", fmt.Sprint(udpPort), "-sockets", "8", "-linger", linger.String(), "-vanish"}
}

// addWeb starts one more server of app web.
func (w *world) addWeb(ctx context.Context, name string) (*nettest.Machine, error) {
	return w.host.Run(ctx, appWeb, nettest.Options{Name: name, Services: services}, w.host.Payload(server()...)...)
}

// second is the other host.
func (w *world) second() *nettest.Host { return w.fleet.Hosts[1] }

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// network is the network of a Machine's address, host its host field.
func fields(m *nettest.Machine) sixpn.Fields {
	f, _ := sixpn.Parse(m.Addr)
	return f
}

// picture is the topology, for people.
func (w *world) picture() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	org := func(name string, m *nettest.Machine) {
		line("  org %-6s network %v", name, sixpn.NetworkPrefix(fields(m).Network))
	}
	member := func(m *nettest.Machine, what string) { line("   ├─ %-11s %-28s %s", m.Name, m.Addr, what) }
	vip := func(a netip.Addr, what string) { line("   ├─ %-11s %-28s %s", "VIP", a, what) }
	line("")
	org(orgAcme, w.client)
	vip(w.webVIP, fmt.Sprintf("web.flycast → web-1, web-2 (tcp %d→%d, udp %d)", vipPort, tcpPort, udpPort))
	member(w.web[0], "server")
	member(w.web[1], "server")
	member(w.client, "client")
	member(w.big, fmt.Sprintf("client, MTU %d", bigMTU))
	vip(w.soloVIP, "solo.flycast → solo-1")
	member(w.solo, "server and its own client")
	for _, m := range fleetMachines {
		member(*m.of(w), m.what)
	}
	line("   │")
	line("   ╪═ eBPF router of host %v in %s ══ fe80::1 ══ DNS %v", fields(w.client).Host, homeRegion, sixpn.DNS)
	line("   │")
	org(orgRival, w.spy)
	member(w.spy, "attacker")
	member(w.vault, "server")
	line("")
	line("   ╪═ WireGuard over %v ══ %v", w.host.Uplink.V4, w.second().Uplink.V4)
	line("")
	org(orgAcme, w.away)
	member(w.away, "server")
	member(w.awayBig, fmt.Sprintf("server, MTU %d", bigMTU))
	line("   │")
	line("   ╪═ eBPF router of host %v in %s", fields(w.away).Host, awayRegion)
	line("   │")
	org(orgRival, w.outpost)
	member(w.outpost, "server")
	return b.String()
}

// lookAround says how to go on with a world that was kept.
func (w *world) lookAround(underlay int) string {
	h := w.host
	var b strings.Builder
	fmt.Fprintf(&b, `the world stays. Look around with:
  export SIXPN_SOCKET=%[1]s   # the second host's is %[2]s
  sixpn status
  sixpn machine list -a web
  sixpn machine exec -a client %[3]s -- %[4]s
  tail %[5]s
and remove it with:
`, h.Socket(), w.second().Socket(), w.client.ID, strings.Join(h.Payload("lookup", "AAAA", "web.internal"), " "), h.LogPath())
	for _, h := range slices.Backward(w.fleet.Hosts) {
		fmt.Fprintf(&b, `  nsenter --net=/proc/%[1]d/ns/net sh -c 'kill %[1]d && tail --pid=%[1]d -f /dev/null;
    sixpn agent reset --name %[2]s --state-dir %[3]s --run-dir %[4]s --state'
  rm -r %[5]s
`, h.AgentPID(), h.Name, h.StateDir(), h.RunDir(), h.Dir)
	}
	fmt.Fprintf(&b, "  kill %d", underlay)
	return b.String()
}

// connections runs "connect" inside a Machine.
func connections(ctx context.Context, m *nettest.Machine, args ...string) (payload.Connections, error) {
	return nettest.Probe[payload.Connections](ctx, m, append([]string{"connect"}, args...)...)
}

// datagrams runs "datagrams" inside a Machine.
func datagrams(ctx context.Context, m *nettest.Machine, args ...string) (payload.Datagrams, error) {
	return nettest.Probe[payload.Datagrams](ctx, m, append([]string{"datagrams"}, args...)...)
}

// ping runs "ping" inside a Machine.
func ping(ctx context.Context, m *nettest.Machine, args ...string) (payload.Datagrams, error) {
	return nettest.Probe[payload.Datagrams](ctx, m, append([]string{"ping"}, args...)...)
}

// lookup runs "lookup" inside a Machine.
func lookup(ctx context.Context, m *nettest.Machine, args ...string) (payload.Lookup, error) {
	return nettest.Probe[payload.Lookup](ctx, m, append([]string{"lookup"}, args...)...)
}

// dropped does something and says by how much a drop counter of the first host rose
// meanwhile.
func (w *world) dropped(ctx context.Context, reason string, do func() error) (uint64, error) {
	return droppedAt(ctx, w.host, reason, do)
}

func droppedAt(ctx context.Context, host *nettest.Host, reason string, do func() error) (uint64, error) {
	before, err := host.Drops(ctx, reason)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := host.Drops(ctx, reason)
	return after - before, err
}
