package agent

import (
	"cmp"
	"context"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// Live is api.DataPlane.
func (d dataPlane) Live(_ context.Context, m state.Machine) (api.Live, error) {
	live := api.Live{Checks: d.prober.Latest(m.ID), Limits: d.limitsOf(m)}
	port, ok := d.ports.recall(m.ID)
	if !ok {
		return live, nil
	}
	counts, err := d.tables.PortCounters()
	if err != nil {
		return live, err
	}
	for _, c := range counts {
		// A device whose number was another's before is in the tables once they say whose.
		if c.Ifindex != port.Ifindex || (numbered{c.Network, c.Host, c.Machine}) != (numbered{m.Network, m.Host, m.Number}) {
			continue
		}
		shown := portShown(c, port.Device, m)
		live.Port = &shown
		drops, err := d.tables.PortDrops()
		if err != nil {
			return live, err
		}
		live.Drops = dropsShown(drops[c.Ifindex])
	}
	return live, nil
}

// limitsOf is how the limits of a Machine's services are divided.
func (d dataPlane) limitsOf(m state.Machine) (limits []api.LimitStatus) {
	snapshot := d.store.Snapshot()
	for _, division := range d.divisions() {
		if (numbered{division.Backend.Network, division.Host, division.Machine}) != (numbered{m.Network, m.Host, m.Number}) {
			continue
		}
		limit := api.LimitStatus{
			Vip: sixpn.VIPAddr(division.VIP.Network, division.Number).String(), Protocol: maps.ProtocolName(division.Protocol), Port: int(division.First),
			InternalPort: int(division.Port), SoftLimit: int(division.Soft), HardLimit: int(division.Hard), Hosts: []api.LimitShare{},
		}
		for _, share := range division.Hosts {
			shown := api.LimitShare{
				HostName: cmp.Or(snapshot.Hosts[share.Host].Name, share.Host.String()), Flows: int(share.Flows),
				Waiting: share.Wanted, Standing: api.LimitShareStanding(share.Standing.String()),
			}
			if division.Hard != 0 {
				shown.Share = int(share.Share)
			}
			limit.Hosts = append(limit.Hosts, shown)
		}
		limits = append(limits, limit)
	}
	return limits
}
