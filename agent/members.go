package agent

import (
	"cmp"
	"context"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/observe"
	"github.com/sixpn/sixpn/state"
)

// watchMembers asks the members of the store how they do, for the metrics, on the hosts
// that have one: few, however many hosts there are. A scrape does not wait for it.
func (a *agent) watchMembers(ctx context.Context) error {
	ticker := time.NewTicker(a.config.Timeouts.Members)
	defer ticker.Stop()
	for {
		var members []observe.Member
		if len(a.config.Store) == 0 && state.HasData(a.config.storeDir()) {
			status, err := keeper{a}.StoreStatus(ctx)
			if err != nil { // not one answers; those that there were do not either
				members = a.storeMembers()
				for i := range members {
					members[i].Answers = false
				}
			}
			for _, m := range status.Members {
				members = append(members, observe.Member{Host: cmp.Or(m.Host, m.Endpoint), Voter: m.Role != api.StoreMemberRoleLearner, Answers: m.Answers})
			}
		}
		a.members.Store(&members)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// storeMembers is a copy of what watchMembers last found.
func (a *agent) storeMembers() []observe.Member {
	if found := a.members.Load(); found != nil {
		return append([]observe.Member(nil), *found...)
	}
	return nil
}

// certificateTimes are zero of a host that is alone.
func (a *agent) certificateTimes() (from, until time.Time) {
	if a.fleet == nil {
		return from, until
	}
	return a.fleet.Validity()
}

func (a *agent) handshakes() map[sixpn.Host]time.Time {
	at := map[sixpn.Host]time.Time{}
	for host, peer := range a.meshPeersNow() {
		at[host] = peer.LastHandshake
	}
	return at
}
