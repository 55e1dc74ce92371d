package agent_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// TestPair is the whole way once: an org, apps, Machines that talk, a VIP, names.
func TestPair(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	own := sixpn.MachinePrefix(fieldsOf(p.client).Network, fieldsOf(p.client).Host, fieldsOf(p.client).Machine)
	for _, row := range []struct{ name, target string }{
		{"direct", at(p.server.Addr, tcpPort)},
		{"VIP", at(p.vip, vipPort)},
	} {
		got := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, p.client, "connect", "-count", "20", row.target))
		if got.OK != 20 || got.Answers[p.server.ID] != 20 {
			t.Errorf("%s: %+v, expected 20 answers of %s", row.name, got, p.server.ID)
		}
		for seen := range got.Clients {
			if !own.Contains(netip.MustParseAddr(seen)) {
				t.Errorf("%s: the server saw %s, expected an address of %s", row.name, seen, own)
			}
		}
	}
	for _, row := range []struct{ name, kind, want string }{
		{"web.internal", "AAAA", p.server.Addr.String()},
		{"web.flycast", "AAAA", p.vip.String()},
		{"_apps.internal", "TXT", "client,web"},
	} {
		for _, transport := range [][]string{nil, {"-tcp"}} {
			args := append(append([]string{"lookup"}, transport...), row.kind, row.name)
			got := nettest.Get[payload.Lookup](t)(nettest.Probe[payload.Lookup](ctx, p.client, args...))
			if len(got.Answers) != 1 || got.Answers[0] != row.want {
				t.Errorf("%s %s: %+v, expected %s", row.kind, row.name, got, row.want)
			}
		}
	}
}

func fieldsOf(m *nettest.Machine) sixpn.Fields {
	f, _ := sixpn.Parse(m.Addr)
	return f
}

// TestStatus says what the kernel has, under the names of the state.
func TestStatus(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	p.works(ctx, t)
	if n := p.answered(t, at(p.vip, udpPort), 4, 5*time.Second); n != 4 {
		t.Errorf("%d of 4 datagrams were answered", n)
	}
	got, err := p.Status(ctx)
	nettest.Must(t, err)
	if got.Revision.Applied != got.Revision.Wanted || got.Agent.Message != "" || got.Agent.Name != p.Name || got.Agent.Pid != p.AgentPID() {
		t.Errorf("agent %+v, revision %+v", got.Agent, got.Revision)
	}
	kinds := map[string]int{}
	for _, port := range got.Ports {
		kinds[port.Kind]++
		if port.Device == "" || port.MTU != 1420 {
			t.Errorf("port %+v has no name, or not the default MTU", port)
		}
		if port.MachineID == p.client.ID && (port.App != "client" || port.Address != p.client.Addr.String() || port.RxPackets == 0 || port.TxPackets == 0) {
			t.Errorf("the client's port is %+v", port)
		}
	}
	if kinds["machine"] != 2 || kinds["host"] != 1 || len(kinds) != 2 {
		t.Errorf("ports by kind are %v, expected two of Machines and the host's", kinds)
	}
	seen := []string{}
	for _, s := range got.Services {
		seen = append(seen, fmt.Sprintf("%s %s/%d-%d %s %s %d", s.Vip, s.Protocol, s.FirstPort, s.LastPort, s.App, s.Action, len(s.Backends)))
		internal := map[string]int{"tcp": tcpPort, "udp": udpPort}[s.Protocol]
		if len(s.Backends) != 1 || s.Backends[0].MachineID != p.server.ID || s.Backends[0].InternalPort != internal {
			t.Errorf("backends of %+v: expected port %d of %s", s, internal, p.server.ID)
		} else if s.Protocol == "udp" && s.Backends[0].Flows == 0 {
			t.Errorf("%+v has no flows: expected those of the datagrams just sent", s)
		}
	}
	want := fmt.Sprintf("%[1]s tcp/80-80 web balance 1, %[1]s udp/9000-9000 web balance 1", p.vip)
	if strings.Join(seen, ", ") != want {
		t.Errorf("services are %q, expected %q", seen, want)
	}
}

// TestCrossNetworkVIP: an allocation for another org opens these ports to it, and
// nothing else.
func TestCrossNetworkVIP(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	nettest.Must(t, p.CreateOrg(ctx, "partner"))
	nettest.Must(t, p.CreateApp(ctx, "visitor", "partner"))
	visitor := p.run(ctx, t, "visitor", nettest.Options{}, "idle")
	door := nettest.Get[netip.Addr](t)(p.AllocateVIP(ctx, "web", "partner"))
	if f, _ := sixpn.Parse(door); f.Network != fieldsOf(visitor).Network {
		t.Fatalf("the address for partner is %s, expected one of network %v", door, fieldsOf(visitor).Network)
	}
	if by := connects(ctx, t, visitor, at(door, vipPort)); by[p.server.ID] != 10 {
		t.Errorf("through the door %v answered, expected %s", by, p.server.ID)
	}
	for _, wall := range []string{at(p.server.Addr, tcpPort), at(p.vip, vipPort)} {
		before := nettest.Get[uint64](t)(p.Drops(ctx, "other_network"))
		got := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, visitor, "connect", "-timeout", "500ms", wall))
		dropped := nettest.Get[uint64](t)(p.Drops(ctx, "other_network")) - before
		if got.OK != 0 || dropped != got.Segments {
			t.Errorf("to %s: %+v and %d drops, expected none to come through and each segment to count", wall, got, dropped)
		}
	}
	got := nettest.Get[payload.Lookup](t)(nettest.Probe[payload.Lookup](ctx, visitor, "lookup", "AAAA", "web.flycast"))
	if len(got.Answers) != 1 || got.Answers[0] != door.String() {
		t.Errorf("web.flycast is %v for partner, expected %s", got.Answers, door)
	}
}
