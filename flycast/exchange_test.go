package flycast_test

import (
	"fmt"
	stdmaps "maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
)

// element is what a kernel has of a seat.
type element struct {
	live, share, elsewhere uint32
	wanted                 bool
}

// model is some hosts with a kernel and an agent each, and all that is on its way.
type model struct {
	*rapid.T
	now     time.Time
	hosts   []sixpn.Host
	limits  map[maps.Seat]maps.Limits
	kernels map[sixpn.Host]map[maps.Seat]*element
	agents  map[sixpn.Host]*flycast.Exchange
	lost    map[sixpn.Host]bool
	flying  []flight
	quiet   bool // nothing but agents acts
}

type flight struct {
	from, to sixpn.Host
	data     []byte
}

func seatAt(host sixpn.Host, machine sixpn.Machine) maps.Seat {
	return maps.Seat{VIP: maps.VIP{Network: 1, Number: 3}, Protocol: maps.ProtocolTCP, First: 80, Backend: maps.Backend{Network: 1, Host: host, Machine: machine, Port: 8080}}
}

func newModel(t *rapid.T) *model {
	m := &model{
		T: t, now: time.Unix(1_000_000, 0), hosts: []sixpn.Host{11, 12, 13}, limits: map[maps.Seat]maps.Limits{},
		kernels: map[sixpn.Host]map[maps.Seat]*element{}, agents: map[sixpn.Host]*flycast.Exchange{}, lost: map[sixpn.Host]bool{},
	}
	for _, seat := range []maps.Seat{seatAt(11, 1), seatAt(11, 2), seatAt(12, 3)} {
		m.limits[seat] = maps.Limits{Hard: rapid.Uint32Range(1, 7).Draw(t, "limit")}
	}
	for _, host := range m.hosts {
		m.kernels[host] = map[maps.Seat]*element{}
		for _, seat := range m.seats() {
			m.kernels[host][seat] = &element{}
		}
		m.start(host)
	}
	return m
}

func (m *model) seats() []maps.Seat {
	return slices.SortedFunc(stdmaps.Keys(m.limits), maps.CompareSeats)
}

// start is a new run of a host's agent.
func (m *model) start(host sixpn.Host) {
	m.agents[host] = flycast.NewExchange(host, flycast.ExchangeTimes{})
	m.learn(host)
}

func (m *model) learn(host sixpn.Host) {
	limits, others := map[maps.Seat]maps.Limits{}, map[sixpn.Host]flycast.Reach{}
	for seat, l := range m.limits {
		if seat.Host == host {
			limits[seat] = l
		}
	}
	for _, other := range m.hosts {
		if other == host {
			continue
		}
		others[other] = flycast.Reachable
		if m.lost[other] {
			others[other] = rapid.SampledFrom([]flycast.Reach{flycast.Silent, flycast.Lost}).Draw(m.T, "reach")
		}
	}
	m.agents[host].Learn(limits, others)
}

// kernel is a host's, in which flows begin whenever the agent looks away.
type kernel struct {
	*model
	host sixpn.Host
}

func (k kernel) Seats() (all []maps.SeatLoad, complete bool, err error) {
	k.meanwhile()
	for _, seat := range k.seats() {
		if e := k.kernels[k.host][seat]; e != nil {
			all = append(all, maps.SeatLoad{Seat: seat, Limits: k.limits[seat], Live: e.live, Share: e.share, Elsewhere: e.elsewhere, Wanted: e.wanted})
			e.wanted = false
		}
	}
	k.meanwhile()
	return all, true, nil
}

func (k kernel) SetShares(shares []maps.Share) error {
	for _, s := range shares {
		k.meanwhile()
		if e := k.kernels[k.host][s.Seat]; e != nil {
			e.share, e.elsewhere = s.Limit, s.Elsewhere
		}
		k.check()
	}
	return nil
}

// meanwhile flows begin and end.
func (k kernel) meanwhile() {
	if k.quiet {
		return
	}
	for range rapid.IntRange(0, 2).Draw(k.T, "meanwhile") {
		k.flow(k.host)
	}
}

func (m *model) flow(host sixpn.Host) {
	e := m.kernels[host][rapid.SampledFrom(m.seats()).Draw(m.T, "seat")]
	switch {
	case e == nil:
	case rapid.IntRange(0, 2).Draw(m.T, "ends") == 0:
		e.live -= min(1, e.live)
	case e.live < e.share:
		e.live++
	default:
		e.wanted = true
	}
	m.check()
}

// check is the invariant: what all hosts have or can begin never exceeds the limit.
func (m *model) check() {
	for seat, l := range m.limits {
		sum := uint32(0)
		for _, host := range m.hosts {
			if e := m.kernels[host][seat]; e != nil {
				sum += max(e.live, e.share)
			}
		}
		if sum > l.Hard {
			m.Fatalf("the hosts may have %d flows with %+v, whose limit is %d: %s", sum, seat.Backend, l.Hard, m.describe(seat))
		}
	}
}

func (m *model) describe(seat maps.Seat) (s string) {
	for _, host := range m.hosts {
		if e := m.kernels[host][seat]; e != nil {
			s += fmt.Sprintf(" host %d: %+v", host, *e)
		}
	}
	return s
}

// crash is the end of a host, with its kernel, or its return.
func (m *model) crash(host sixpn.Host) {
	m.kernels[host] = map[maps.Seat]*element{}
	if m.lost[host] = !m.lost[host]; !m.lost[host] {
		for _, seat := range m.seats() {
			m.kernels[host][seat] = &element{}
		}
		m.start(host)
	}
	for _, other := range m.hosts {
		m.learn(other)
	}
}

func (m *model) step(host sixpn.Host) {
	if m.lost[host] {
		return
	}
	out, _, err := m.agents[host].Step(m.now, kernel{m, host})
	if err != nil {
		m.Fatal(err)
	}
	for _, o := range out {
		m.flying = append(m.flying, flight{host, o.To, o.Data})
	}
}

func (m *model) deliver(i int) {
	f := m.flying[i]
	if m.lost[f.to] {
		return
	}
	// A host that is not known, or lost, is not heard.
	_, _ = m.agents[f.to].Receive(f.from, f.data)
}

// act is something that happens: most often what makes progress.
func (m *model) act() {
	host := rapid.SampledFrom(m.hosts).Draw(m.T, "host")
	switch rapid.IntRange(0, 14).Draw(m.T, "what") {
	case 0, 1, 2:
		m.step(host)
	case 3, 4, 5, 6:
		if len(m.flying) == 0 {
			return
		}
		i := rapid.IntRange(0, len(m.flying)-1).Draw(m.T, "which")
		m.deliver(i)
		if rapid.IntRange(0, 3).Draw(m.T, "again") > 0 {
			m.flying = slices.Delete(m.flying, i, i+1)
		}
	case 7:
		if len(m.flying) > 0 {
			i := rapid.IntRange(0, len(m.flying)-1).Draw(m.T, "lost")
			m.flying = slices.Delete(m.flying, i, i+1)
		}
	case 8, 9, 10:
		m.flow(host)
	case 11:
		m.now = m.now.Add(time.Duration(rapid.IntRange(1, 2000).Draw(m.T, "ms")) * time.Millisecond)
	case 12:
		if !m.lost[host] && rapid.IntRange(0, 2).Draw(m.T, "dies") == 0 {
			m.start(host)
		}
	case 13:
		if rapid.IntRange(0, 3).Draw(m.T, "crashes") == 0 {
			m.crash(host)
		}
	case 14: // a seat comes or goes, its flows with it
		if m.lost[host] {
			return
		}
		seat := rapid.SampledFrom(m.seats()).Draw(m.T, "seat")
		if m.kernels[host][seat] == nil {
			m.kernels[host][seat] = &element{}
		} else {
			delete(m.kernels[host], seat)
		}
	}
}

// settle lets the agents alone, in a network that loses nothing.
func (m *model) settle() {
	m.quiet = true
	for range 60 { // longer than a flow is taken to wait
		m.now = m.now.Add(150 * time.Millisecond)
		for _, host := range m.hosts {
			m.step(host)
		}
		for range 4 { // answers to answers
			flying := m.flying
			m.flying = nil
			for _, f := range flying {
				_, _ = m.agents[f.to].Receive(f.from, f.data)
			}
			for _, host := range m.hosts {
				m.step(host)
			}
		}
		m.check()
	}
}

// Whatever is lost, late, or twice, and whichever agent or host dies: the limit holds at every
// moment, and once all is quiet it is dealt out as a whole.
func TestSharesModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(0, 120).Draw(t, "acts") {
			m.act()
			m.check()
		}
		for _, host := range m.hosts {
			if m.lost[host] {
				m.crash(host)
			}
		}
		m.settle()
		for _, seat := range m.seats() {
			sum, users := uint32(0), 0
			for _, host := range m.hosts {
				if e := m.kernels[host][seat]; e != nil {
					sum += e.share
					users++
				}
			}
			if users > 0 && sum != m.limits[seat].Hard {
				t.Fatalf("of %+v %d of %d are dealt out: %s", seat.Backend, sum, m.limits[seat].Hard, m.describe(seat))
			}
		}
	})
}
