package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// votersOf is how many members of the store have a vote, as a host sees them.
func votersOf(ctx context.Context, h *nettest.Host) (int, error) {
	answer, err := h.Client.GetStoreWithResponse(ctx)
	if err := api.Check(answer, err); err != nil {
		return 0, err
	}
	voters := 0
	for _, m := range answer.JSON200.Members {
		if m.Role != api.StoreMemberRoleLearner {
			voters++
		}
	}
	return voters, nil
}

// The founder is killed when the second host has just got its vote: of two, both are
// needed, so nothing is written until it is back, and then the store comes to be on three.
// Later its disk is lost for good: the others go on, another host takes its place, and
// what it comes back as is a new host. No write that was acknowledged is lost.
func TestFounderIsLost(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "fra"},
		Host: nettest.Config{AgentFlags: []string{
			"--members-interval", "300ms", "--member-replacement", "1s", "--heartbeat-interval", "500ms", "--host-expiry", "2s",
		}},
	})
	founder := f.Hosts[0]
	createOrg(ctx, t, founder, "founded")
	third, err := f.NewHost("ams")
	nettest.Must(t, err)
	nettest.Must(t, f.Join(ctx, third))
	nettest.Must(t, nettest.Eventually(ctx, "a second member has a vote", func(ctx context.Context) error {
		voters, err := votersOf(ctx, founder)
		if err == nil && voters < 2 {
			err = errors.New("it has none")
		}
		return err
	}))
	nettest.Must(t, founder.KillAgent())
	nettest.Must(t, founder.StartAgent(ctx))
	awaitStore(ctx, t, f, []int{0, 1, 2}, 0, 1, 2)
	createOrg(ctx, t, third, "three")

	fourth, err := f.NewHost("ams")
	nettest.Must(t, err)
	nettest.Must(t, f.Join(ctx, fourth))
	before := hostIDs(ctx, t, third)[founder.Name]
	nettest.Must(t, founder.KillAgent())
	_, err = founder.Reset(ctx)
	nettest.Must(t, err)
	nettest.Must(t, os.RemoveAll(founder.StateDir()))
	createOrg(ctx, t, f.Hosts[1], "without-the-founder")
	awaitStore(ctx, t, f, []int{1, 2, 3}, 1, 2, 3)
	token, err := third.Invite(ctx)
	nettest.Must(t, err)
	nettest.Must(t, founder.StartAgent(ctx, "--host-name", founder.Name+"-anew", "--join", token))
	createOrg(ctx, t, founder, "anew")
	hosts := hostIDs(ctx, t, third)
	if again := hosts[founder.Name+"-anew"]; again == "" || again == before {
		t.Errorf("the founder is host %q, was %q: expected a new one", again, before)
	}
	for _, h := range f.Hosts {
		nettest.Must(t, nettest.Eventually(ctx, "a host knows all that was acknowledged", func(ctx context.Context) error {
			answer, err := h.Client.ListOrgsWithResponse(ctx)
			if err := api.Check(answer, err); err != nil {
				return err
			}
			if got := len(answer.JSON200.Organizations); got != 4 {
				return fmt.Errorf("host %s knows %d orgs, expected 4", h.Name, got)
			}
			return nil
		}))
	}
}
