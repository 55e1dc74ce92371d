package agent_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// TestWithdrawn takes away, in the middle of their flows, what connections go by:
// their clients are told, also those that send nothing.
func TestWithdrawn(t *testing.T) {
	const held = 6
	for _, row := range []struct {
		name string
		org  string // whose network the address is in, "" for the app's own
	}{
		{"own network", ""},
		{"across networks", "partner"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := nettest.Context(t)
			p := newPair(ctx, t, nettest.Config{})
			client, address := p.client, p.vip
			if row.org != "" {
				nettest.Must(t, p.CreateOrg(ctx, row.org))
				nettest.Must(t, p.CreateApp(ctx, "visitor", row.org))
				client = p.run(ctx, t, "visitor", nettest.Options{}, "idle")
				address = nettest.Get[netip.Addr](t)(p.AllocateVIP(ctx, "web", row.org))
			}
			type result struct {
				seen []payload.Held
				err  error
			}
			done := make(chan result, 1)
			go func() {
				seen, err := nettest.Probe[[]payload.Held](ctx, client, "hold", "-count", fmt.Sprint(held), "-quiet", fmt.Sprint(held/2), at(address, vipPort))
				done <- result{seen, err}
			}()
			nettest.Must(t, nettest.Eventually(ctx, "all connections are flows", func(ctx context.Context) error {
				status, err := p.Status(ctx)
				if err != nil {
					return err
				}
				var flows uint64
				for _, s := range status.Services {
					if s.Vip == address.String() && s.Protocol == "tcp" {
						flows += s.Backends[0].Flows
					}
				}
				if flows < held {
					return fmt.Errorf("there are %d flows, expected %d", flows, held)
				}
				return nil
			}))
			answer, err := p.Client.DeleteIPAssignmentWithResponse(ctx, "web", address.String(), &api.DeleteIPAssignmentParams{Wait: api.WaitForApplied})
			nettest.Must(t, api.Check(answer, err))
			got := <-done
			nettest.Must(t, got.err)
			for _, c := range got.seen {
				if c.End != "reset" || c.Lasted > 10000 {
					t.Errorf("a connection (quiet: %v) ended as %q after %d ms, expected a reset at once", c.Quiet, c.End, c.Lasted)
				}
			}
			if new := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, client, "connect", "-timeout", "500ms", at(address, vipPort))); new.OK > 0 {
				t.Error("the address that was withdrawn still takes connections")
			}
		})
	}
}
