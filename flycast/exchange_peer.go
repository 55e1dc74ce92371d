package flycast

import (
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/maps"
)

// peer is another host, as a client of backends here and as the host of others.
//
// A run is the life of one agent, named by a random number. What a datagram says counts
// only if it is of the peer's present run, for this run, and later than what counted
// before. That a run is the present one, and no late datagram of the one before, is
// proved when it has seen a datagram that was sent after its first was heard. Until then
// nothing counts, of no run: what is said to one must not be undone by another.
type peer struct {
	host      sixpn.Host
	silent    bool
	lost      bool   // it is to be put behind fences, and forgotten
	settled   bool   // no earlier run granted it anything that is not fenced
	run       uint64 // 0: none is known
	last      uint64 // that was known last
	candidate uint64 // a run that is not proved yet, 0: none
	since     uint64 // the first number of ours that named the candidate
	heard     uint64 // its highest number, of the candidate if there is one
	seen      uint64 // the highest number of the run that counted
	acked     uint64 // the highest number of ours that it has seen

	owes    bool      // it waits for a datagram
	spoke   bool      // something came from it since the last look
	heardAt time.Time // when it did last
	mute    bool      // that is so long ago that its agent seems not to run
	sentAt  time.Time // the last datagram
	said    string    // what that one said
	content uint64    // its number, if it must be seen

	// As a client's host.
	known  bool // it has said, since the run is known, all that it has
	fresh  bool // and the run is another one than that which was granted to
	holds  map[maps.Seat]*hold
	report map[maps.Seat]bool // of which all parts came so far, nil: none
	part   uint64             // the number of the next one

	// As the backend's host: what it granted.
	offers map[maps.Seat]grant
}

// hold is what a client's host has of a backend here.
type hold struct {
	listed  bool   // it has said so in its latest report
	live    uint32 // flows
	held    uint32 // flows that it had or could begin when it last said so
	wanted  bool
	granted uint32 // its share
	sent    []sentShare
}

// sentShare is a share on its way; of those that are equal the latest.
type sentShare struct {
	number uint64
	share  uint32
}

// maxSent is how many different shares may be on their way: while so many are unseen
// nothing else is granted.
const maxSent = 16

// maxHolds bounds what a host that lies can have this one remember. No host has so many
// backends with limits.
const maxHolds = 1 << 16

// bound is the highest number of flows that the host may have, or come to have by what
// it was ever sent.
func (h *hold) bound() uint32 {
	bound := max(h.held, h.granted)
	for _, s := range h.sent {
		bound = max(bound, s.share)
	}
	return bound
}

// send notes that the share goes out in a datagram.
func (h *hold) send(number uint64) {
	for i := range h.sent {
		if h.sent[i].share == h.granted {
			h.sent[i].number = number
			return
		}
	}
	h.sent = append(h.sent, sentShare{number, h.granted})
}

// forget drops what was seen: it is in what was reported, or never took effect.
func (h *hold) forget(seen uint64) {
	kept := h.sent[:0]
	for _, s := range h.sent {
		if s.number > seen {
			kept = append(kept, s)
		}
	}
	h.sent = kept
}

func newPeer(host sixpn.Host) *peer {
	return &peer{host: host, holds: map[maps.Seat]*hold{}, offers: map[maps.Seat]grant{}}
}

// unknown is whether it may have more than its holds say, by a run of before.
func (p *peer) unknown() bool { return !p.known && !p.settled }

// to is the run that datagrams name.
func (p *peer) to() uint64 { return p.run | p.candidate } // one of them is 0

// hear says whether what a datagram says counts. own is this agent's run, next the
// number of its next datagram.
func (p *peer) hear(d datagram, own, next uint64) bool {
	if d.from == 0 {
		return false
	}
	if d.from != p.run {
		if d.from != p.candidate {
			p.run, p.candidate, p.since, p.heard = 0, d.from, next, d.number
			p.owes = true
			return false
		}
		before := p.heard
		p.heard = max(p.heard, d.number)
		if d.to != own || d.seen < p.since {
			p.owes = true
			return false
		}
		p.run, p.candidate, p.seen, p.acked = d.from, 0, before, d.seen
		p.known, p.report, p.offers, p.said = false, nil, map[maps.Seat]grant{}, ""
		if p.last != p.run {
			p.renew()
		}
		if d.number <= p.seen { // what it says was ignored once, and it was told so
			p.owes = true
			return false
		}
	} else if d.to != own {
		p.owes = true
		return false
	}
	if d.number <= p.seen {
		return false
	}
	p.seen, p.heard = d.number, d.number
	p.acked = max(p.acked, d.seen)
	return true
}

// renew forgets what was sent to the run before: it never reaches this one. What that had
// until then may still be in its kernel.
func (p *peer) renew() {
	p.last, p.fresh = p.run, true
	for _, h := range p.holds {
		h.held = h.bound()
		h.sent, h.granted = nil, 0
	}
}

// take takes reports up; it returns whether something can be done now.
func (p *peer) take(d datagram, self sixpn.Host, short map[maps.Seat]bool) (urgent bool) {
	if d.number == d.first {
		p.report, p.part = map[maps.Seat]bool{}, d.first
	}
	if p.part != d.number {
		p.report = nil
	}
	p.part++
	for _, r := range d.reports {
		r.seat.Host = self
		h := p.holds[r.seat]
		if h == nil && len(p.holds) >= maxHolds {
			p.report = nil // so it is not all that it has
			continue
		}
		if h == nil {
			h = &hold{}
			p.holds[r.seat] = h
			urgent = true
		}
		urgent = urgent || r.wanted && !h.wanted || r.held < h.held && short[r.seat]
		h.listed, h.live, h.held, h.wanted = true, r.live, r.held, r.wanted
		if p.fresh {
			h.granted = r.held
		}
		h.forget(d.seen)
		if p.report != nil {
			p.report[r.seat] = true
		}
	}
	if p.report == nil || d.number != d.first+uint64(d.count)-1 {
		return urgent
	}
	for seat, h := range p.holds {
		if !p.report[seat] {
			*h = hold{sent: h.sent}
			h.forget(d.seen)
			urgent = urgent || short[seat]
		}
		if !h.listed && len(h.sent) == 0 {
			delete(p.holds, seat)
		}
	}
	urgent = urgent || !p.known
	p.known, p.fresh, p.report = true, false, nil
	return urgent
}
