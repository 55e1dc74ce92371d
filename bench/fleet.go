package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// fleet is hosts with agents that share nothing but an underlay.
type fleet struct{ *nettest.Fleet }

// regions is one for each host of a fleet that is measured.
var regions = []string{"iad", "fra", "nrt"}

// newFleet starts so many hosts, at most as there are regions. Their underlay has the
// offloads that a network card would.
func newFleet(ctx context.Context, size int, progress func(string)) (fleet, error) {
	progress(fmt.Sprintf("starting %d hosts", size))
	made, err := nettest.NewFleet(nettest.FleetConfig{
		Host: nettest.Config{
			Prefix: "sixpn-bench-", LogLevel: "warn",
			AgentFlags: []string{"--members-interval", "1s"}, // it is not measured how long members take
		},
		Regions: regions[:size],
	})
	if err != nil {
		return fleet{}, err
	}
	err = made.Start(ctx)
	for _, h := range made.Hosts {
		if err == nil {
			err = h.Do(nettest.OffloadUplink)
		}
	}
	if err != nil {
		return fleet{}, errors.Join(err, made.Close())
	}
	return fleet{made}, nil
}

// voters returns once the store has so many members that vote. Hosts become members one
// after the other, each when it has caught up.
func (f fleet) voters(ctx context.Context, count int) error {
	return nettest.Eventually(ctx, fmt.Sprintf("the store has %d voters", count), func(ctx context.Context) error {
		answer, err := f.Hosts[0].Client.GetStoreWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		voters := 0
		for _, m := range answer.JSON200.Members {
			if m.Answers && m.Role != api.StoreMemberRoleLearner {
				voters++
			}
		}
		if voters != count {
			return fmt.Errorf("%d vote of %d members", voters, len(answer.JSON200.Members))
		}
		return nil
	})
}
