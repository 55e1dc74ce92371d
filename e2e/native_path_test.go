package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// TestNativeNarrowPath: a router between the hosts takes less than their links. What agents
// say to each other arrives all the same: the errors of that router about the hosts' own
// packets are the hosts', and agents find by themselves what passes to each other's data
// plane.
func TestNativeNarrowPath(t *testing.T) {
	ctx := nettest.Context(t)
	const narrow = 1300
	f := &twoHosts{Fleet: nettest.StartFleet(ctx, t, nettest.FleetConfig{Native: true})}
	f.org(ctx, t, "acme")
	f.here, f.there = f.server(ctx, t, 0, "acme-here"), f.server(ctx, t, 1, "acme-there")
	for _, h := range f.Hosts {
		nettest.Must(t, h.Limit(narrow))
	}
	// By the first host's agent to the second one's, and back.
	text := strings.Repeat("0123456789abcdef", 32<<10)
	got := nettest.Get[api.ExecResult](t)(f.exec(ctx, f.there, api.ExecRequest{Command: []string{"cat"}, Stdin: text}))
	if got.Stdout != text || got.Truncated {
		t.Errorf("of %d bytes through both agents %d came back", len(text), len(got.Stdout))
	}
	for i, h := range f.Hosts {
		if mtu := nettest.Get[int](t)(h.PathMTU(f.Hosts[1-i].Uplink.V6)); mtu != narrow {
			t.Errorf("host %s knows of an MTU of %d to the other one: expected %d, as the router said", h.Name, mtu, narrow)
		}
		nettest.Must(t, nettest.Eventually(ctx, "the largest packet is found", func(ctx context.Context) error {
			answer, err := h.Client.ProbeHostWithResponse(ctx, f.Hosts[1-i].Name)
			if err := api.Check(answer, err); err != nil {
				return err
			}
			if p := answer.JSON200; p.Way != api.HostProbeWayBoth || p.Passes != narrow {
				return fmt.Errorf("%+v, expected packets of %d", p, narrow)
			}
			return nil
		}))
	}
	reach(ctx, t, f.here, f.there.Addr)
	reach(ctx, t, f.there, f.here.Addr)
}
