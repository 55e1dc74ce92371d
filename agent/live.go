package agent

import (
	"context"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// Live is api.DataPlane.
func (d dataPlane) Live(_ context.Context, m state.Machine) (api.Live, error) {
	live := api.Live{Checks: d.prober.Latest(m.ID)}
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
