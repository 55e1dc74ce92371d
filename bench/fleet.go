package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/sixpn/sixpn/internal/nettest"
)

// fleet is hosts with agents that share nothing but an underlay. The store is on the first.
type fleet struct{ *nettest.Fleet }

// regions is one for each host of a fleet that is measured.
var regions = []string{"iad", "fra", "nrt"}

// newFleet starts so many hosts, at most as there are regions. Their underlay has the
// offloads that a network card would.
func newFleet(ctx context.Context, size int, progress func(string)) (fleet, error) {
	progress(fmt.Sprintf("starting %d hosts", size))
	made, err := nettest.NewFleet(nettest.FleetConfig{
		Host: nettest.Config{Prefix: "sixpn-bench-", LogLevel: "warn"}, Regions: regions[:size],
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

// settle returns once every host has in its tables what was written on any before.
func (f fleet) settle(ctx context.Context) error {
	latest := int64(0)
	for _, h := range f.Hosts {
		status, err := h.Status(ctx)
		if err != nil {
			return err
		}
		latest = max(latest, status.Revision.Wanted)
	}
	for _, h := range f.Hosts {
		err := nettest.Eventually(ctx, "every host has the latest revision in its tables", func(ctx context.Context) error {
			status, err := h.Status(ctx)
			if err == nil && status.Revision.Applied < latest {
				err = fmt.Errorf("host %s has revision %d of %d: %s", h.Name, status.Revision.Applied, latest, status.Agent.Message)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
