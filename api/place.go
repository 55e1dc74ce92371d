package api

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// place chooses the host of a new Machine, and the region that it is said to be of:
// the host that was named, else this one if it is of the region, else the one there
// with the fewest Machines. Where no host is, this one takes it in that region's name:
// a fleet of one host may have every region. A request that is made again finds the
// host where it made its Machine.
func (s *Server) place(r CreateMachineRequest) (sixpn.Host, string, error) {
	snapshot := s.config.Store.Snapshot()
	region := cmp.Or(r.Region, s.config.Region)
	if r.HostName != "" {
		host, err := s.host(snapshot, r.HostName)
		if err != nil {
			return 0, "", err
		}
		if r.Region != "" && r.Region != host.Region {
			return 0, "", invalid("region", "region is %q, but the host %s is in %q: leave one of the two out", r.Region, host.Name, host.Region)
		}
		if !snapshot.Present(host.ID) {
			return 0, "", notReady("host %s is lost %s, so nothing would start there: name another one (sixpn hosts list), or wait until it is back", host.Name, sinceText(snapshot.AbsentSince(host.ID)))
		}
		return host.ID, host.Region, nil
	}
	if made, ok := snapshot.Machines[r.ID]; ok && r.ID != "" {
		return made.Host, region, nil
	}
	there := slices.DeleteFunc(slices.Collect(maps.Values(snapshot.Hosts)), func(h state.Host) bool { return h.Region != region })
	if len(there) == 0 || r.Config.Attach != nil {
		return s.config.Host, region, nil
	}
	able := slices.DeleteFunc(there, func(h state.Host) bool {
		return h.Draining || !snapshot.Present(h.ID) || len(snapshot.HostMachines(h.ID)) >= state.MaxHostMachines
	})
	if len(able) == 0 {
		return 0, "", notReady("no host in %s takes new Machines; look at them with: sixpn hosts list", region)
	}
	best := slices.MinFunc(able, func(a, b state.Host) int {
		return cmp.Or(
			cmp.Compare(rank(b.ID == s.config.Host), rank(a.ID == s.config.Host)),
			cmp.Compare(len(snapshot.HostMachines(a.ID)), len(snapshot.HostMachines(b.ID))),
			cmp.Compare(a.ID, b.ID),
		)
	})
	return best.ID, region, nil
}

func rank(first bool) int {
	if first {
		return 1
	}
	return 0
}

func (o *operations) MigrateMachine(ctx context.Context, r MigrateMachineRequestObject) (MigrateMachineResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	snapshot := o.config.Store.Snapshot()
	if _, err := o.machine(snapshot, r.AppName, r.MachineID); err != nil {
		return nil, err
	}
	host, err := o.host(snapshot, r.Body.HostName)
	if err != nil {
		return nil, err
	}
	m, revision, err := o.config.Store.MigrateMachine(ctx, r.MachineID, r.Params.FlyMachineLeaseNonce, host.ID)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return MigrateMachine200JSONResponse{
		Body: o.machineOf(m), Headers: MigrateMachine200ResponseHeaders{SixpnRevision: revision},
	}, nil
}
