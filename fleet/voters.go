package fleet

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// voters is how many members the store of a fleet has once there are as many hosts:
// one may be lost then. With two, losing either would stop it, so before that it is one.
const voters = 3

// Candidate is a host, as far as membership of the store goes.
type Candidate struct {
	ID       sixpn.Host
	Region   string
	Underlay netip.AddrPort // invalid: it can be no member
	Lost     bool           // for so long that another one shall take its place
	Away     bool           // now, however long
	Draining bool
}

// ChangeKind is what is to be done about the members of the store.
type ChangeKind uint8

// The kinds of change.
const (
	NoChange      ChangeKind = iota
	AddMember                // the host Change.Host is to become a learner
	PromoteMember            // the learner Change.Member is to have a vote, if it has caught up
	RemoveMember             // Change.Member is to go
)

// Change is one step; the next is decided when it is done.
type Change struct {
	Kind   ChangeKind
	Host   sixpn.Host        // of the member; 0: no host of the fleet
	Member state.StoreMember // zero for AddMember
}

// NextChange is what is to be done next, by the hosts of the fleet and the members of
// its store. stale says which members have had no host for so long that they may go; a
// host that moves has none for a moment. It depends on nothing else, so that all hosts
// come to the same end; each does only what is its own part.
func NextChange(hosts []Candidate, members []state.StoreMember, stale func(state.StoreMember) bool) Change {
	hosts = slices.SortedFunc(slices.Values(hosts), func(a, b Candidate) int { return cmp.Compare(a.ID, b.ID) })
	hostOf := func(m state.StoreMember) (Candidate, bool) {
		i := slices.IndexFunc(hosts, func(h Candidate) bool { return h.Underlay == m.Underlay && m.Underlay.IsValid() })
		if i < 0 {
			return Candidate{}, false
		}
		return hosts[i], true
	}
	seated := map[sixpn.Host]bool{}
	regions := map[string]bool{}
	for _, m := range members {
		if !m.Underlay.IsValid() {
			return Change{} // only its own host hears it: nobody can join
		}
		if h, ok := hostOf(m); ok {
			seated[h.ID] = true
			regions[h.Region] = true
		}
	}
	target := voters
	if len(hosts) < voters {
		target = 1
	}
	for _, m := range members {
		h, ok := hostOf(m)
		switch {
		case !ok && stale(m) && len(members) > 1:
			return Change{Kind: RemoveMember, Member: m}
		case m.Learner && ok && h.Lost:
			return Change{Kind: RemoveMember, Host: h.ID, Member: m}
		case m.Learner && ok && len(members) <= target:
			return Change{Kind: PromoteMember, Host: h.ID, Member: m}
		case m.Learner && ok:
			return Change{Kind: RemoveMember, Host: h.ID, Member: m}
		case m.Learner:
			return Change{} // until it is stale
		}
	}
	next, some := candidate(hosts, seated, regions)
	if len(members) < target {
		if !some {
			return Change{}
		}
		return Change{Kind: AddMember, Host: next.ID}
	}
	if len(members) == 1 {
		return Change{}
	}
	// One too many, or one whose place another can take: who is lost goes first, then
	// the newest host.
	for _, lost := range []bool{true, false} {
		for _, h := range slices.Backward(hosts) {
			i := slices.IndexFunc(members, func(m state.StoreMember) bool { return m.Underlay == h.Underlay && h.Underlay.IsValid() })
			if i < 0 || h.Lost != lost || !lost && len(members) == target || lost && len(members) == target && !some {
				continue
			}
			return Change{Kind: RemoveMember, Host: h.ID, Member: members[i]}
		}
	}
	return Change{}
}

// candidate is the next host to be a member: in a region that has none if there is one.
func candidate(hosts []Candidate, seated map[sixpn.Host]bool, regions map[string]bool) (Candidate, bool) {
	var best Candidate
	found := false
	for _, h := range hosts {
		if seated[h.ID] || h.Lost || h.Away || h.Draining || !h.Underlay.IsValid() {
			continue
		}
		if !found || regions[best.Region] && !regions[h.Region] {
			best, found = h, true
		}
	}
	return best, found
}
