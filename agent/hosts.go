package agent

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// hosts is the API's view of the hosts of the fleet.
type hosts struct{ *agent }

var _ api.Hosts = hosts{}

// maxCalls is how many hosts are asked at the same moment.
const maxCalls = 64

// Seen is api.Hosts.
func (h hosts) Seen(ctx context.Context, list []state.Host, ask bool) []api.HostSeen {
	seen := make([]api.HostSeen, len(list))
	var group errgroup.Group
	group.SetLimit(maxCalls + 1)
	roles := map[netip.AddrPort]api.StoreMemberRole{}
	if ask {
		group.Go(func() error { roles = h.storeRoles(ctx); return nil })
	}
	peers := h.meshPeersNow()
	for i, host := range list {
		s := &seen[i]
		if host.ID == h.host.ID {
			s.Heard, s.Report = time.Now(), h.report(0).shown()
			continue
		}
		s.RoundTrip, _ = h.trips.Host(host.ID)
		s.Handshake = peers[host.ID].LastHandshake
		s.Heard = latest(s.RoundTrip.Answered, s.Handshake)
		if !ask {
			continue
		}
		group.Go(func() error {
			answer, err := h.ask(ctx, host)
			if s.Err = err; err == nil {
				s.Heard, s.Report = answer.answered, answer.shown()
			}
			return nil
		})
	}
	_ = group.Wait() // nothing in it fails
	for i, host := range list {
		if at, err := netip.ParseAddrPort(host.Endpoint); err == nil {
			seen[i].Store = roles[at]
		}
	}
	return seen
}

// storeRoles is which hosts have a member of the fleet's store, by their endpoints. While
// the store does not answer it is those that had a vote when it last did.
func (h hosts) storeRoles(ctx context.Context) map[netip.AddrPort]api.StoreMemberRole {
	roles := map[netip.AddrPort]api.StoreMemberRole{}
	if h.fleet == nil || len(h.config.Store) > 0 {
		return roles
	}
	ctx, cancel := context.WithTimeout(ctx, h.config.Timeouts.Call)
	defer cancel()
	members, err := state.StoreMembers(ctx, h.client)
	for _, m := range members {
		roles[m.Underlay] = api.StoreMemberRoleVoter
		if m.Learner {
			roles[m.Underlay] = api.StoreMemberRoleLearner
		}
	}
	if err == nil {
		return roles
	}
	known := map[string]bool{}
	for _, endpoint := range h.fleet.Endpoints() {
		known[endpoint] = true
	}
	for _, host := range h.store.Snapshot().Hosts {
		if at, err := netip.ParseAddrPort(host.Endpoint); err == nil && known[state.StoreURL(at)] {
			roles[at] = api.StoreMemberRoleVoter
		}
	}
	return roles
}
