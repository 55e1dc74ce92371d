package flycast

import (
	stdmaps "maps"
	"time"

	"github.com/sixpn/sixpn/maps"
)

// quietRefreshes is after how many intervals of what is always told a host that told
// nothing counts as one whose agent does not run. It keeps what it has.
const quietRefreshes = 3

// begin takes up what an earlier run left.
func (x *Exchange) begin(kernel Seats) error {
	if x.begun {
		return nil
	}
	fences, err := kernel.Fences()
	if err != nil {
		return err
	}
	if err := x.book.read(); err != nil {
		return err
	}
	for _, fence := range fences {
		x.fences[fence] = true
	}
	for seat, bounds := range x.book.written {
		delete(x.doubtful, seat)
		for host, most := range bounds {
			p := x.peers[host]
			if p == nil { // it was removed meanwhile
				p = newPeer(host)
				p.lost = true
				x.peers[host] = p
			}
			if p.holds[seat] == nil {
				p.holds[seat] = &hold{held: most}
			}
		}
	}
	x.begun = true
	return nil
}

// expel puts hosts that are lost behind fences, where they have something or may have,
// and forgets them.
func (x *Exchange) expel(kernel Seats) error {
	for host, p := range x.peers {
		if !p.lost {
			continue
		}
		var add []maps.Fence
		for seat, limits := range x.limits {
			if h := p.holds[seat]; limits.Hard != 0 && (h != nil && h.bound() > 0 || p.unknown() && x.doubtful[seat]) {
				add = append(add, seat.Fence(host))
			}
		}
		for seat, h := range p.holds { // of a service that may come back
			if _, ok := x.limits[seat]; !ok && h.bound() > 0 {
				add = append(add, seat.Fence(host))
			}
		}
		if len(add) > 0 {
			if err := kernel.SetFences(add, nil); err != nil {
				return err
			}
		}
		for _, fence := range add {
			x.fences[fence] = true
		}
		delete(x.peers, host)
	}
	return nil
}

// readmit takes down the fences behind which there is no more than there is room for.
func (x *Exchange) readmit(kernel Seats, seats []maps.SeatLoad) error {
	if len(x.fences) == 0 {
		return nil
	}
	own := map[maps.Seat]maps.SeatLoad{}
	for _, s := range seats {
		own[s.Seat] = s
	}
	for fence := range x.fences {
		if p := x.peers[fence.Client]; p == nil || !p.known || !x.fits(fence, p, own) {
			continue
		}
		if err := kernel.SetFences(nil, []maps.Fence{fence}); err != nil {
			return err
		}
		delete(x.fences, fence)
	}
	return nil
}

func (x *Exchange) fits(fence maps.Fence, p *peer, own map[maps.Seat]maps.SeatLoad) bool {
	for seat, h := range p.holds {
		if seat.Fence(fence.Client) == fence && x.limits[seat].Hard != 0 && h.bound() > x.free(seat, own[seat]) {
			return false
		}
	}
	return true
}

// noteSilence finds the hosts whose agents do not run. Who was granted something answers
// at each refresh.
func (x *Exchange) noteSilence(now time.Time) {
	for _, p := range x.peers {
		if p.spoke || p.heardAt.IsZero() {
			p.heardAt, p.spoke = now, false
		}
		p.mute = now.Sub(p.heardAt) > quietRefreshes*x.times.Refresh
	}
}

// record brings the ledger up to date, before anything is sent by which a bound has grown.
func (x *Exchange) record() error {
	unknown := false
	now := map[maps.Seat]Bounds{}
	for host, p := range x.peers {
		unknown = unknown || p.unknown()
		for seat, h := range p.holds {
			if most := h.bound(); most > 0 && !x.fences[seat.Fence(host)] {
				if now[seat] == nil {
					now[seat] = Bounds{}
				}
				now[seat][host] = most
			}
		}
	}
	if !unknown {
		clear(x.doubtful)
	}
	for seat := range x.limits {
		if now[seat] == nil && !x.doubtful[seat] {
			now[seat] = nil
		}
	}
	stdmaps.DeleteFunc(now, func(seat maps.Seat, _ Bounds) bool { return x.doubtful[seat] })
	if err := x.book.write(now); err != nil {
		return &LedgerError{err}
	}
	return nil
}
