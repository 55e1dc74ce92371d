package dns

import (
	"net"
	"strings"
	"sync"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// networkZone is the names of a network that belong to no single app. Its parts
// are made apart: few clients ask for more than one.
type networkZone struct {
	names   func() zone     // below internal.
	flycast func() zone     // below flycast.
	reverse func() *reverse // below a.a.d.f.ip6.arpa.
}

// networkRow is one line of the table of a network's names. started is the
// Machines by app, for those that have a started one, all likewise for any.
type networkRow struct {
	shape string
	fill  func(z zone, asker sixpn.Network, all, started []*state.Machine)
}

var networkRows = []networkRow{
	{"_apps.internal", func(z zone, _ sixpn.Network, _, started []*state.Machine) {
		var names []string
		for _, m := range started { // of one app after the other
			if len(names) == 0 || names[len(names)-1] != m.App {
				names = append(names, m.App)
			}
		}
		z.at("_apps").text = list(names, ",")
	}},
	{"_peer.internal", func(z zone, _ sixpn.Network, _, _ []*state.Machine) {
		z.at("_peer") // nothing makes a peer yet, but there is the list
	}},
	{"_instances.internal", func(z zone, _ sixpn.Network, all, started []*state.Machine) {
		z.at("_instances").text = list(described(started), ";")
		z.at("all._instances").text = list(described(all), ";")
	}},
	// The resolver answers for the API as well, at the address that both Machines and
	// peers reach.
	{"_api.internal", func(z zone, asker sixpn.Network, _, _ []*state.Machine) {
		z.at("_api").addresses = []net.IP{sixpn.NetworkDNS(asker).AsSlice()}
	}},
}

func (v *View) newNetworkZone(asker sixpn.Network) *networkZone {
	return &networkZone{
		names: sync.OnceValue(func() zone {
			var all, started []*state.Machine
			for _, app := range v.snapshot.NetworkApps(asker) {
				z, ok := v.app(asker, app.Name)
				if !ok {
					continue
				}
				all, started = append(all, v.named(app)...), append(started, z.started...)
			}
			names := zone{"": new(records)}
			for _, row := range networkRows {
				row.fill(names, asker, all, started)
			}
			return names
		}),
		flycast: sync.OnceValue(func() zone { return v.flycast(asker) }),
		reverse: sync.OnceValue(func() *reverse { return v.reverse(asker) }),
	}
}

// flycast is <app>.flycast of each app that the asker's network reaches by a
// Flycast address, be it an app of another network.
func (v *View) flycast(asker sixpn.Network) zone {
	z := zone{"": new(records)}
	for address, vip := range v.snapshot.VIPs {
		if name, ok := spell(vip.App); ok && vip.Network == asker {
			at := z.at(name)
			at.addresses = append(at.addresses, address.AsSlice())
		}
	}
	return z
}

// described are the items of _instances.
func described(machines []*state.Machine) []string {
	items := make([]string, len(machines))
	for i, m := range machines {
		items[i] = strings.Join([]string{"instance=" + m.ID, "app=" + m.App, "ip=" + m.Addr().String(), "region=" + m.Region}, ",")
	}
	return items
}
