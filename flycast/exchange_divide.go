package flycast

import "github.com/sixpn/sixpn/maps"

// plan divides the limits of the backends here. It changes what other hosts are granted,
// and returns what this host's own kernel should have.
func (x *Exchange) plan(seats []maps.SeatLoad) (shares []maps.Share) {
	own := map[maps.Seat]maps.SeatLoad{}
	all := map[maps.Seat]bool{}
	for _, s := range seats {
		if s.Host == x.self {
			own[s.Seat], all[s.Seat] = s, true
		}
	}
	for _, p := range x.peers {
		for seat := range p.holds {
			all[seat] = true
		}
	}
	x.short = map[maps.Seat]bool{}
	for seat := range all {
		if share, changed := x.divide(seat, own[seat]); changed {
			shares = append(shares, share)
		}
	}
	return shares
}

// divide divides one limit. s is this host's own load, if it has the seat.
func (x *Exchange) divide(seat maps.Seat, s maps.SeatLoad) (share maps.Share, changed bool) {
	limits := x.limits[seat]
	share = maps.Share{Seat: seat, Element: s.Element, Limit: s.Share, Elsewhere: 0}
	var users []user
	if s.Element != 0 {
		users = append(users, user{x.self, s.Live + s.Ending, s.Share + s.Ending, x.waits(s)})
	}
	apart := uint64(0) // of those that get no more and no less now
	for host, p := range x.peers {
		h := p.holds[seat]
		if h == nil || x.fences[seat.Fence(host)] {
			continue
		}
		if h.listed {
			share.Elsewhere += h.live
		}
		if h.listed && p.known && !p.mute {
			users = append(users, user{host, h.live, h.granted, h.wanted})
		} else {
			apart += uint64(h.bound())
		}
	}
	free := x.free(seat, s)
	if limits.Hard == 0 {
		users = nil // shares mean nothing, and stay
	}
	targets := targets(limits.Hard-uint32(min(apart, uint64(limits.Hard))), users)
	for i, u := range users {
		bound := held(s)
		var h *hold
		if u.host != x.self {
			h = x.peers[u.host].holds[seat]
			bound = h.bound()
			if len(h.sent) >= maxSent {
				continue
			}
		}
		next := targets[i]
		if next > u.share {
			if next > bound+free {
				next, x.short[seat] = bound+free, true
			}
			next = max(next, u.share)
			if next > bound {
				free -= next - bound
			}
		}
		if h != nil {
			h.granted = next
		} else {
			share.Limit = next - min(next, s.Ending)
		}
	}
	return share, s.Element != 0 && (share.Limit != s.Share || share.Elsewhere != s.Elsewhere)
}

// free is how much of a limit nobody has and nobody can come to have.
func (x *Exchange) free(seat maps.Seat, s maps.SeatLoad) uint32 {
	taken, limit := uint64(held(s)), uint64(x.limits[seat].Hard)
	for host, p := range x.peers {
		if x.fences[seat.Fence(host)] {
			continue
		}
		if p.unknown() && x.doubtful[seat] {
			return 0 // it may have any share of an earlier run
		}
		if h := p.holds[seat]; h != nil {
			taken += uint64(h.bound())
		}
	}
	return uint32(limit - min(limit, taken))
}

// held is how many flows a host has or can begin with a seat.
func held(s maps.SeatLoad) uint32 { return max(s.Live, s.Share) + s.Ending }
