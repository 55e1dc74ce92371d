package state

import (
	"net/netip"
	"strings"
)

// Assemble is a snapshot of the records in the exported maps of from, with the
// indexes that one read from the store has: for whoever computes on snapshots
// without a store. The maps belong to the snapshot from now on.
func Assemble(from Snapshot) *Snapshot {
	d := newDraft(&Snapshot{
		Revision: from.Revision,
		Orgs:     from.Orgs, Networks: from.Networks, Apps: from.Apps,
		Machines: from.Machines, VIPs: from.VIPs, Hosts: from.Hosts,
		Unreadable: from.Unreadable, Absent: from.Absent,
	})
	for name, app := range from.Apps {
		include(d, &d.next.networkApps, app.Network, name, strings.Compare)
	}
	for _, machine := range from.Machines {
		d.moveMachine(Machine{}, machine)
	}
	for addr, vip := range from.VIPs {
		include(d, &d.next.appVIPs, vip.App, addr, netip.Addr.Compare)
	}
	return &d.next
}
