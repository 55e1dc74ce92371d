package fleet_test

import (
	"net/netip"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/state"
)

func underlay(host int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(host)}), 51821)
}

// fleetOf is hosts 1 to n, each in a region of its own.
func fleetOf(n int) (hosts []fleet.Candidate) {
	for i := 1; i <= n; i++ {
		hosts = append(hosts, fleet.Candidate{ID: sixpn.Host(i), Region: string(rune('a' + i)), Underlay: underlay(i)})
	}
	return hosts
}

// membersAt is members on these hosts; a negative one is a learner.
func membersAt(at ...int) (members []state.StoreMember) {
	for _, h := range at {
		m := state.StoreMember{ID: uint64(max(h, -h)), Learner: h < 0}
		m.Underlay = underlay(int(m.ID))
		members = append(members, m)
	}
	return members
}

func TestNextChange(t *testing.T) {
	t.Parallel()
	lost := func(hosts []fleet.Candidate, ids ...int) []fleet.Candidate {
		for _, id := range ids {
			hosts[id-1].Lost, hosts[id-1].Away = true, true
		}
		return hosts
	}
	with := func(hosts []fleet.Candidate, id int, change func(*fleet.Candidate)) []fleet.Candidate {
		change(&hosts[id-1])
		return hosts
	}
	for _, row := range []struct {
		name    string
		hosts   []fleet.Candidate
		members []state.StoreMember
		stale   bool
		want    fleet.ChangeKind
		host    sixpn.Host
		member  uint64
	}{
		{"one host", fleetOf(1), membersAt(1), false, fleet.NoChange, 0, 0},
		{"two hosts", fleetOf(2), membersAt(1), false, fleet.NoChange, 0, 0},
		{"three hosts", fleetOf(3), membersAt(1), false, fleet.AddMember, 2, 0},
		{"a learner", fleetOf(3), membersAt(1, -2), false, fleet.PromoteMember, 2, 2},
		{"two members", fleetOf(3), membersAt(1, 2), false, fleet.AddMember, 3, 0},
		{"three members", fleetOf(3), membersAt(1, 2, 3), false, fleet.NoChange, 0, 0},
		{"many hosts", fleetOf(9), membersAt(1, 2, 3), false, fleet.NoChange, 0, 0},
		{"a store that only its host hears", fleetOf(3), []state.StoreMember{{ID: 1}}, false, fleet.NoChange, 0, 0},
		{"a host that is away", with(fleetOf(3), 2, func(c *fleet.Candidate) { c.Away = true }), membersAt(1), false, fleet.AddMember, 3, 0},
		{"a host that drains", with(fleetOf(3), 2, func(c *fleet.Candidate) { c.Draining = true }), membersAt(1), false, fleet.AddMember, 3, 0},
		{"a host without an address", with(fleetOf(3), 2, func(c *fleet.Candidate) { c.Underlay = netip.AddrPort{} }), membersAt(1), false, fleet.AddMember, 3, 0},
		{"a region that has one", with(fleetOf(4), 2, func(c *fleet.Candidate) { c.Region = "b" }), membersAt(1), false, fleet.AddMember, 3, 0},
		{"a member away", with(fleetOf(4), 2, func(c *fleet.Candidate) { c.Away = true }), membersAt(1, 2, 3), false, fleet.NoChange, 0, 0},
		{"a member lost", lost(fleetOf(4), 2), membersAt(1, 2, 3), false, fleet.RemoveMember, 2, 2},
		{"a member lost and nobody else", lost(fleetOf(3), 2), membersAt(1, 2, 3), false, fleet.NoChange, 0, 0},
		{"the only member lost", lost(fleetOf(3), 1), membersAt(1), false, fleet.AddMember, 2, 0},
		{"a learner lost", lost(fleetOf(3), 2), membersAt(1, -2), false, fleet.RemoveMember, 2, 2},
		{"a host removed a moment ago", fleetOf(3), membersAt(1, 2, 4), false, fleet.NoChange, 0, 0},
		{"a host removed", fleetOf(3), membersAt(1, 2, 4), true, fleet.RemoveMember, 0, 4},
		{"hosts removed until two are left", fleetOf(2), membersAt(1, 2), false, fleet.RemoveMember, 2, 2},
		{"the older of two lost", lost(fleetOf(2), 1), membersAt(1, 2), false, fleet.RemoveMember, 1, 1},
		{"a learner too many", fleetOf(2), membersAt(1, -2), false, fleet.RemoveMember, 2, 2},
		{"four members", fleetOf(5), membersAt(1, 2, 3, 5), false, fleet.RemoveMember, 5, 5},
		{"four members, one lost", lost(fleetOf(5), 1), membersAt(1, 2, 3, 5), false, fleet.RemoveMember, 1, 1},
	} {
		got := fleet.NextChange(row.hosts, row.members, func(state.StoreMember) bool { return row.stale })
		if got.Kind != row.want || got.Host != row.host || got.Member.ID != row.member {
			t.Errorf("%s: change %+v, expected kind %d, host %d, member %d", row.name, got, row.want, row.host, row.member)
		}
	}
}
