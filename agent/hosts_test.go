package agent_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// fleetFlags are those of agents whose fleet changes within seconds.
var fleetFlags = []string{"--round-trip-interval", "100ms", "--host-expiry", "2s", "--heartbeat-interval", "500ms", "--call-timeout", "1s"}

// seen is the other host of two, as a host sees it when it asks.
func seen(ctx context.Context, f *nettest.Fleet, from, of int) (api.Host, error) {
	answer, err := f.Hosts[from].Client.GetHostWithResponse(ctx, f.Hosts[of].Name, &api.GetHostParams{Ask: true})
	if err := api.Check(answer, err); err != nil {
		return api.Host{}, err
	}
	return *answer.JSON200, nil
}

// Each host of two says of both what they say themselves, and of one that is lost what
// was known.
func TestHostsSeen(t *testing.T) {
	ctx := nettest.Context(t)
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{Host: nettest.Config{AgentFlags: fleetFlags}})
	nettest.Must(t, f.Hosts[1].CreateOrg(ctx, "acme"))
	newest := nettest.Get[api.Status](t)(f.Hosts[1].Status(ctx)).Revision.Wanted
	begun := time.Now()
	for from := range f.Hosts {
		for of, store := range []api.StoreMemberRole{api.StoreMemberRoleVoter, ""} {
			nettest.Must(t, nettest.Eventually(ctx, fmt.Sprintf("host %d sees host %d", from, of), func(ctx context.Context) error {
				h, err := seen(ctx, f, from, of)
				switch {
				case err != nil:
					return err
				case h.Answers == nil || !*h.Answers || h.Error != "" || h.Version != "test" || h.Mesh == "" || h.Store != store || h.Message != "":
					return fmt.Errorf("%+v", h)
				case h.WantedRevision < newest || h.AppliedRevision != h.WantedRevision:
					return fmt.Errorf("revision %d of %d, expected %d or later", h.AppliedRevision, h.WantedRevision, newest)
				case h.SeenAt.Before(begun):
					return fmt.Errorf("last seen at %v, which was before %v", h.SeenAt, begun)
				case h.ThisHost != (from == of):
					return nettest.Final(errors.New("it is the host that was asked"))
				case !h.ThisHost && (h.HandshakeAt.IsZero() || h.RoundTripMs == nil || *h.RoundTripMs <= 0):
					return fmt.Errorf("its mesh is not known: %+v", h)
				}
				return nil
			}))
		}
	}
	nettest.Must(t, f.Hosts[1].KillAgent())
	killed := time.Now()
	nettest.Must(t, nettest.Eventually(ctx, "the other host is seen to be lost", func(ctx context.Context) error {
		h, err := seen(ctx, f, 0, 1)
		switch {
		case err != nil:
			return err
		case *h.Answers || h.Error == "" || h.WantedRevision != 0 || h.AppliedRevision != 0:
			return fmt.Errorf("it still answers: %+v", h)
		case h.State != api.HostStateLost:
			return fmt.Errorf("it is %s", h.State)
		case h.SeenAt.Before(killed): // its data plane still answers
			return fmt.Errorf("last seen at %v, it was killed at %v", h.SeenAt, killed)
		}
		return nil
	}))
	nettest.Must(t, f.Hosts[1].StartAgent(ctx))
	nettest.Must(t, nettest.Eventually(ctx, "the other host answers again", func(ctx context.Context) error {
		h, err := seen(ctx, f, 0, 1)
		if err == nil && (!*h.Answers || h.State != api.HostStatePresent) {
			err = fmt.Errorf("%+v", h)
		}
		return err
	}))
}
