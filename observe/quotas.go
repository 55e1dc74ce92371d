package observe

import (
	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

var (
	networkLive   = gauge(sectionFlycast, "network_live_flows", "Live flows of a network's clients on this host", "org", "network")
	networkLimit  = gauge(sectionFlycast, "network_flow_limit", "Live flows that a network's clients on this host may have", "org", "network")
	quotaRefusals = counter(sectionFlycast, "quota_refusals_total", "New flows that found their Machine's or their network's quota used up since the agent began", "org", "network", "quota")
)

// quotaID is the quota of a Machine, or with machine 0 of a whole network.
type quotaID struct {
	network sixpn.Network
	machine sixpn.Machine
}

// quotaSum is what refusals are added up by; network 0 is all beyond the bound.
type quotaSum struct {
	network sixpn.Network
	whole   bool
}

func (o *Collector) collectQuotas(s *state.Snapshot, to *batch) error {
	uses, err := o.config.Tables.QuotaUses()
	if err != nil {
		return err
	}
	type use struct{ live, limit float64 }
	networks := map[sixpn.Network]use{}
	for _, u := range uses {
		sum := quotaSum{network: u.Network, whole: u.Machine == 0}
		if !o.networks.admits(u.Network) {
			sum.network = 0
		}
		o.refusals.see(quotaID{u.Network, u.Machine}, sum, values{u.Refused})
		if sum.whole {
			networks[sum.network] = use{networks[sum.network].live + float64(u.Used), networks[sum.network].limit + float64(u.Limit)}
		}
	}
	o.refusals.sweep(func(sum quotaSum) bool {
		_, ok := s.Networks[sum.network]
		return ok || sum.network == 0
	})
	names := func(n sixpn.Network) (string, string) {
		if n == 0 {
			return other, other
		}
		return o.networkNames(s, n)
	}
	for n, u := range networks {
		org, network := names(n)
		networkLive.emit(to, u.live, org, network)
		networkLimit.emit(to, u.limit, org, network)
	}
	for sum, v := range o.refusals.sums {
		org, network := names(sum.network)
		quota := "machine"
		if sum.whole {
			quota = "network"
		}
		quotaRefusals.emit(to, float64(v[0]), org, network, quota)
	}
	return nil
}
