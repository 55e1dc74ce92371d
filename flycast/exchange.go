package flycast

import (
	"bytes"
	"cmp"
	"errors"
	stdmaps "maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/maps"
)

// Seats is what the kernel knows of backends with shared limits; *maps.Tables has it.
type Seats interface {
	// Seats reads the load; complete is false before all of it is known.
	Seats() (all []maps.SeatLoad, complete bool, err error)
	// SetShares takes effect at once: what Seats reads afterwards has every flow that began
	// by what was before.
	SetShares([]maps.Share) error
	// Void ends the flows that seats have now. Those that go on for a moment stay in what
	// Seats reads.
	Void([]maps.Seat) error
	// Fences are those there are. SetFences adds some, which hold when it returns, and
	// takes some away.
	Fences() ([]maps.Fence, error)
	SetFences(add, remove []maps.Fence) error
}

// ExchangeTimes are the intervals of an Exchange. 0: the default.
type ExchangeTimes struct {
	Interval time.Duration // of load that changed, and of what was not seen: 100 ms
	Refresh  time.Duration // of load that did not: 1 s
	Waiting  time.Duration // how long a refused flow is taken to wait for a share: 5 s
}

// Reach is how another host is reached.
type Reach uint8

// From best to worst.
const (
	Reachable Reach = iota
	Silent          // no packet passes: no flow begins there, what there is may go on
	Lost            // it counts as gone, with all its flows
)

// Exchange agrees with other hosts on the limits of backends. It is a state machine of
// one agent's run, without a clock or a socket, and not safe for concurrent use.
//
// The host of a backend owns its limits. For each other host c it keeps a bound: the most
// flows that c can have, being the largest of what c last said it had or could begin,
// and of every share sent since what c had seen by then. This holds at all times:
//
//	the bounds of all other hosts + what this host has or can begin ≤ the hard limit
//
// or, where flows exceed it because the limit was lowered, no share grows. A bound shrinks
// only by what c says, and c says so after its kernel lets no more begin. Bounds are in a
// Ledger before what raises them is sent, so another run goes on with them.
//
// A host that is lost says nothing more, and still may not keep its places for ever: they
// are given to others after a fence was put up, behind which no packet of its flows passes
// whatever its kernel lets begin or keeps. When it is back the fence falls as soon as what
// it says it has finds room; if that finds none it is told to end those flows first.
type Exchange struct {
	self           sixpn.Host
	run            uint64
	number         uint64 // of the last datagram
	times          ExchangeTimes
	limits         map[maps.Seat]maps.Limits // of backends here
	peers          map[sixpn.Host]*peer      // hosts that are not lost, or not yet behind fences
	fences         map[maps.Fence]bool
	book           book
	begun, learned bool // what an earlier run left, and the limits, are known
	// Seats of which an earlier run, or build, may have granted what no ledger says.
	doubtful map[maps.Seat]bool
	wanted   map[maps.Seat]time.Time // until when a flow here waits for a share
	short    map[maps.Seat]bool      // somebody would get more if somebody else had less
	seats    []maps.SeatLoad         // of the latest step
}

// Outgoing is a datagram to the agent of a host.
type Outgoing struct {
	To   sixpn.Host
	Data []byte
}

// NewExchange begins a run. What it has to know of the one before is in the kernels and in
// the ledger.
func NewExchange(self sixpn.Host, times ExchangeTimes, ledger Ledger) *Exchange {
	times.Interval = cmp.Or(times.Interval, 100*time.Millisecond)
	times.Refresh = cmp.Or(times.Refresh, time.Second)
	times.Waiting = cmp.Or(times.Waiting, 5*time.Second)
	return &Exchange{
		self: self, run: rand.Uint64() | 1, times: times, limits: map[maps.Seat]maps.Limits{}, peers: map[sixpn.Host]*peer{},
		fences: map[maps.Fence]bool{}, book: book{ledger: ledger}, doubtful: map[maps.Seat]bool{}, wanted: map[maps.Seat]time.Time{}, short: map[maps.Seat]bool{},
	}
}

// Learn says what the limits of the backends of this host are, and which other hosts
// there are.
func (x *Exchange) Learn(limits map[maps.Seat]maps.Limits, hosts map[sixpn.Host]Reach) {
	if !x.learned { // of those that come later nobody was ever granted anything
		for seat := range limits {
			x.doubtful[seat] = true
		}
	}
	x.limits, x.learned = limits, true
	for host, reach := range hosts {
		p := x.peers[host]
		if p == nil && (reach != Lost || !x.begun) {
			p = newPeer(host)
			p.settled = x.begun // else it was fenced, or is new
			x.peers[host] = p
		}
		if p != nil {
			p.silent, p.lost = reach == Silent, reach == Lost
		}
	}
	for host, p := range x.peers {
		if _, exists := hosts[host]; !exists {
			p.lost = true
		}
	}
}

// Receive takes up a datagram of a host. It returns whether a Step should follow at once.
func (x *Exchange) Receive(from sixpn.Host, raw []byte) (urgent bool, err error) {
	d, err := decodeDatagram(raw)
	if err != nil {
		return false, err
	}
	p := x.peers[from]
	if p == nil || p.lost {
		return false, errors.New("load of a host that is not known, or lost")
	}
	p.spoke = true
	if !p.hear(d, x.run, x.number+1) {
		return p.owes, nil
	}
	p.owes = p.owes || d.answer
	urgent = p.take(d, x.self, x.short)
	for _, g := range d.grants {
		g.seat.Host = from
		urgent = urgent || p.offers[g.seat].share != g.share || g.void
		p.offers[g.seat] = g
	}
	return urgent || !p.known, nil
}

// Step does what is to be done now, and returns what is to be sent. again asks for
// another one soon. After a *LedgerError another one goes on as if this had not been.
func (x *Exchange) Step(now time.Time, kernel Seats) (out []Outgoing, again bool, err error) {
	seats, complete, err := kernel.Seats()
	if err != nil || !complete {
		return nil, false, err
	}
	if err := x.begin(kernel); err != nil {
		return nil, false, err
	}
	if err := x.expel(kernel); err != nil {
		return nil, false, err
	}
	x.noteWanted(seats, now)
	if shares, void := x.accept(seats); len(shares)+len(void) > 0 {
		if err := errors.Join(kernel.SetShares(shares), kernel.Void(void)); err != nil {
			return nil, false, err
		}
		if seats, _, err = kernel.Seats(); err != nil {
			return nil, false, err
		}
		x.noteWanted(seats, now)
	}
	x.noteSilence(now)
	if err := x.readmit(kernel, seats); err != nil {
		return nil, false, err
	}
	if shares := x.plan(seats); len(shares) > 0 {
		again = true
		if err := kernel.SetShares(shares); err != nil {
			return nil, false, err
		}
	}
	if err := x.record(); err != nil {
		return nil, false, err
	}
	of := map[sixpn.Host][]maps.SeatLoad{}
	for _, s := range seats {
		of[s.Host] = append(of[s.Host], s)
	}
	x.seats = seats
	flows := x.flows(of[x.self])
	for _, host := range slices.Sorted(stdmaps.Keys(x.peers)) {
		out = append(out, x.datagrams(x.peers[host], of[host], flows, now)...)
	}
	return out, again, nil
}

func (x *Exchange) noteWanted(seats []maps.SeatLoad, now time.Time) {
	for _, s := range seats {
		if s.Wanted {
			x.wanted[s.Seat] = now.Add(x.times.Waiting)
		}
	}
	stdmaps.DeleteFunc(x.wanted, func(_ maps.Seat, until time.Time) bool { return !now.Before(until) })
}

// waits is whether a flow here waits for a share. One that got it needs it still, for its
// client has to try again before it is used.
func (x *Exchange) waits(s maps.SeatLoad) bool {
	_, wanted := x.wanted[s.Seat]
	return wanted
}

// accept is what other hosts granted and the kernel has not yet. A host that no packet
// passes to may count this one as lost and grant its share to others: it is given back
// before, which costs nothing, for no flow can begin there.
//
// Flows that end count in what was granted until they have: so much less may begin.
func (x *Exchange) accept(seats []maps.SeatLoad) (shares []maps.Share, void []maps.Seat) {
	for _, s := range seats {
		if s.Element == 0 {
			continue
		}
		want := maps.Share{Seat: s.Seat, Element: s.Element, Limit: s.Share, Elsewhere: s.Elsewhere}
		if p := x.peers[s.Host]; p != nil && p.silent {
			delete(p.offers, s.Seat)
			want.Limit = 0
		} else if p != nil {
			if g, ok := p.offers[s.Seat]; ok {
				want.Limit, want.Elsewhere = g.share-min(g.share, s.Ending), g.elsewhere
				if g.void && s.Live+s.Share > 0 {
					void = append(void, s.Seat)
				}
			}
		} else if s.Host != x.self {
			want.Limit = 0
		}
		if want.Limit != s.Share || want.Elsewhere != s.Elsewhere {
			shares = append(shares, want)
		}
	}
	return shares, void
}

// datagrams are what one host is to be told now, if anything. seats are those of its
// backends, flows what the backends here have.
func (x *Exchange) datagrams(p *peer, seats []maps.SeatLoad, flows map[maps.Seat]uint32, now time.Time) (out []Outgoing) {
	reports, grants := x.content(p, seats, flows)
	content := datagram{reports: reports, grants: grants}.encode()
	nothing := len(reports)+len(grants) == 0
	asks := p.candidate != 0 || !p.known && x.limited()
	since := now.Sub(p.sentAt)
	changed := !bytes.Equal(content, []byte(p.said)) && !(nothing && p.said == "")
	unseen := p.acked < p.content && since >= x.times.Interval
	tells := changed || unseen || (asks || !nothing) && since >= x.times.Refresh
	if !tells && !p.owes {
		return nil
	}
	count := max(1, (max(len(reports), len(grants))+perDatagram-1)/perDatagram)
	first := x.number + 1
	for i := range count {
		x.number++
		d := datagram{
			answer: tells, from: x.run, to: p.to(), number: x.number, seen: p.heard, first: first, count: uint16(count),
			reports: part(reports, i), grants: part(grants, i),
		}
		for _, g := range d.grants {
			p.holds[g.seat].send(x.number)
		}
		out = append(out, Outgoing{p.host, d.encode()})
	}
	p.owes, p.sentAt, p.said = false, now, string(content)
	if tells {
		p.content = x.number
	}
	return out
}

// content is all there is to say to a host. What it granted of seats that are not here
// any more is forgotten with it: it is told so.
func (x *Exchange) content(p *peer, seats []maps.SeatLoad, flows map[maps.Seat]uint32) (reports []report, grants []grant) {
	here := map[maps.Seat]bool{}
	for _, s := range seats {
		here[s.Seat] = s.Element != 0
		most := held(s)
		if here[s.Seat] {
			most = max(most, p.offers[s.Seat].share)
		}
		reports = append(reports, report{s.Seat, s.Live + s.Ending, most, x.waits(s)})
	}
	stdmaps.DeleteFunc(p.offers, func(seat maps.Seat, _ grant) bool { return !here[seat] })
	if p.known && p.run != 0 { // a run that is not proved is granted nothing
		for seat, h := range p.holds {
			if h.listed {
				elsewhere, void := flows[seat], x.fences[seat.Fence(p.host)]
				if void {
					h.granted = 0
				} else {
					elsewhere -= h.live
				}
				grants = append(grants, grant{seat, h.granted, elsewhere, void})
			}
		}
	}
	slices.SortFunc(reports, func(a, b report) int { return maps.CompareSeats(a.seat, b.seat) })
	slices.SortFunc(grants, func(a, b grant) int { return maps.CompareSeats(a.seat, b.seat) })
	return reports, grants
}

// flows is how many each backend here has, of all hosts that are not behind a fence. own
// are those of this host.
func (x *Exchange) flows(own []maps.SeatLoad) map[maps.Seat]uint32 {
	flows := map[maps.Seat]uint32{}
	for _, s := range own {
		flows[s.Seat] += s.Live + s.Ending
	}
	for host, p := range x.peers {
		for seat, h := range p.holds {
			if h.listed && !x.fences[seat.Fence(host)] {
				flows[seat] += h.live
			}
		}
	}
	return flows
}

// limited is whether a backend here has a hard limit.
func (x *Exchange) limited() bool {
	for _, l := range x.limits {
		if l.Hard != 0 {
			return true
		}
	}
	return false
}

func part[E any](all []E, i int) []E {
	return all[min(len(all), i*perDatagram):min(len(all), (i+1)*perDatagram)]
}
