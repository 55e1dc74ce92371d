package flycast_test

import (
	"errors"
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
	live, ending, share, elsewhere uint32
	wanted, gone                   bool
}

// memory is a ledger that outlives agents.
type memory struct {
	all  map[maps.Seat]flycast.Bounds
	full bool
}

func (l *memory) Read() (map[maps.Seat]flycast.Bounds, error) { return l.all, nil }

func (l *memory) Write(all, _ map[maps.Seat]flycast.Bounds, _ []maps.Seat) error {
	if l.full {
		return errors.New("it is full")
	}
	l.all = all
	return nil
}

// model is some hosts with a kernel and an agent each, and all that is on its way.
type model struct {
	*rapid.T
	now     time.Time
	hosts   []sixpn.Host
	limits  map[maps.Seat]maps.Limits
	kernels map[sixpn.Host]map[maps.Seat]*element
	agents  map[sixpn.Host]*flycast.Exchange
	ledgers map[sixpn.Host]*memory
	fences  map[sixpn.Host]map[maps.Fence]bool // of the kernel of a backend's host
	lost    map[sixpn.Host]bool                // it has crashed
	dead    map[sixpn.Host]bool                // its agent has
	views   map[[2]sixpn.Host]flycast.Reach    // what one takes the other for, rightly or not
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
		ledgers: map[sixpn.Host]*memory{}, fences: map[sixpn.Host]map[maps.Fence]bool{}, dead: map[sixpn.Host]bool{},
		views: map[[2]sixpn.Host]flycast.Reach{},
	}
	for _, seat := range []maps.Seat{seatAt(11, 1), seatAt(11, 2), seatAt(12, 3)} {
		m.limits[seat] = maps.Limits{Hard: rapid.Uint32Range(1, 7).Draw(t, "limit")}
	}
	for _, host := range m.hosts {
		m.kernels[host] = map[maps.Seat]*element{}
		for _, seat := range m.seats() {
			m.kernels[host][seat] = &element{}
		}
		m.ledgers[host], m.fences[host] = &memory{}, map[maps.Fence]bool{}
		m.start(host)
	}
	return m
}

func (m *model) seats() []maps.Seat {
	return slices.SortedFunc(stdmaps.Keys(m.limits), maps.CompareSeats)
}

// start is a new run of a host's agent.
func (m *model) start(host sixpn.Host) {
	m.agents[host] = flycast.NewExchange(host, flycast.ExchangeTimes{}, m.ledgers[host])
	m.dead[host] = false
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
		others[other] = m.views[[2]sixpn.Host{host, other}]
		if m.lost[other] {
			others[other] = rapid.SampledFrom([]flycast.Reach{flycast.Silent, flycast.Lost}).Draw(m.T, "reach")
		}
	}
	m.agents[host].Learn(limits, others)
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
	case e.ending > 0 && rapid.Bool().Draw(m.T, "stopped"):
		e.ending--
	case e.gone:
	case rapid.IntRange(0, 2).Draw(m.T, "ends") == 0:
		e.live -= min(1, e.live)
	case e.live < e.share:
		e.live++
	default:
		e.wanted = true
	}
	m.check()
}

// check is the invariant: what all hosts have or can begin never exceeds the limit, but for
// what no packet passes of, behind a fence of the backend's host.
func (m *model) check() {
	for seat, l := range m.limits {
		sum := uint32(0)
		for _, host := range m.hosts {
			if e := m.kernels[host][seat]; e != nil && !m.fences[seat.Host][seat.Fence(host)] {
				sum += max(e.live, e.share) + e.ending
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
			s += fmt.Sprintf(" host %d: %+v, fenced %v", host, *e, m.fences[seat.Host][seat.Fence(host)])
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
	if m.lost[host] || m.dead[host] {
		return
	}
	out, _, err := m.agents[host].Step(m.now, kernel{m, host})
	if full := (*flycast.LedgerError)(nil); err != nil && !(errors.As(err, &full) && m.ledgers[host].full) {
		m.Fatal(err)
	}
	for _, o := range out {
		m.flying = append(m.flying, flight{host, o.To, o.Data})
	}
}

func (m *model) deliver(i int) {
	f := m.flying[i]
	if m.lost[f.to] || m.dead[f.to] {
		return
	}
	// A host that is not known, or lost, is not heard.
	_, _ = m.agents[f.to].Receive(f.from, f.data)
}

// act is something that happens: most often what makes progress.
func (m *model) act() {
	host := rapid.SampledFrom(m.hosts).Draw(m.T, "host")
	switch rapid.IntRange(0, 19).Draw(m.T, "what") {
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
	case 14: // a seat comes or goes; its flows go on until they are stopped
		if m.lost[host] {
			return
		}
		seat := rapid.SampledFrom(m.seats()).Draw(m.T, "seat")
		if e := m.kernels[host][seat]; e.gone {
			e.gone = false
		} else {
			*e = element{ending: e.ending + e.live, gone: true}
		}
	case 15: // cut, or healed: each end may see it, or not
		other := rapid.SampledFrom(m.hosts).Draw(m.T, "other")
		m.views[[2]sixpn.Host{host, other}] = rapid.SampledFrom([]flycast.Reach{flycast.Reachable, flycast.Silent, flycast.Lost}).Draw(m.T, "view")
		m.learn(host)
	case 16:
		m.dead[host] = true
	case 17:
		m.ledgers[host].full = !m.ledgers[host].full
	default:
		m.round()
	}
}

// round is a moment without misfortune between agents.
func (m *model) round() {
	for _, host := range m.hosts {
		m.step(host)
	}
	flying := m.flying
	m.flying = nil
	for _, f := range flying {
		if !m.lost[f.to] && !m.dead[f.to] {
			_, _ = m.agents[f.to].Receive(f.from, f.data)
		}
	}
}

// settle lets the agents alone, in a network that loses nothing.
func (m *model) settle() {
	m.quiet = true
	for range 60 { // longer than a flow is taken to wait
		m.now = m.now.Add(150 * time.Millisecond)
		for _, host := range m.hosts {
			for _, e := range m.kernels[host] {
				e.ending = 0
			}
			m.step(host)
		}
		for range 4 { // answers to answers
			m.round()
		}
		m.check()
	}
}

// heal is the end of all misfortune.
func (m *model) heal() {
	clear(m.views)
	for _, host := range m.hosts {
		m.ledgers[host].full = false
		switch {
		case m.lost[host]:
			m.crash(host)
		case m.dead[host]:
			m.start(host)
		}
	}
	for _, host := range m.hosts {
		m.learn(host)
	}
}

// checkDealtOut is what there is no reason not to reach.
func (m *model) checkDealtOut(when string) {
	for _, seat := range m.seats() {
		sum, users := uint32(0), 0
		for _, host := range m.hosts {
			if e := m.kernels[host][seat]; e != nil && !e.gone {
				sum += m.having(host, seat)
				users++
			}
			if m.fences[seat.Host][seat.Fence(host)] {
				m.Fatalf("%s there is a fence for host %d: %s", when, host, m.describe(seat))
			}
		}
		if shown := m.division(seat); len(shown) != users {
			m.Fatalf("%s the host of %+v shows %d users of it, expected %d: %+v", when, seat.Backend, len(shown), users, shown)
		}
		if users > 0 && sum != m.limits[seat].Hard {
			m.Fatalf("%s of %+v %d of %d are dealt out: %s", when, seat.Backend, sum, m.limits[seat].Hard, m.describe(seat))
		}
	}
}

// Whatever is lost, late, or twice, whoever is cut off or taken for it, and whichever agent
// or host dies: the limit holds at every moment, and once all is quiet it is dealt out as a
// whole; also among the others while one agent is dead.
func TestSharesModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		if rapid.Bool().Draw(t, "settled") {
			m.settle()
			m.quiet = false
		}
		for range rapid.IntRange(0, 120).Draw(t, "acts") {
			m.act()
			m.check()
		}
		m.heal()
		m.settle()
		m.checkDealtOut("in the end")
		m.checkDivisions(flycast.Agreed)

		dead := rapid.SampledFrom(m.hosts).Draw(t, "dead")
		for _, e := range m.kernels[dead] {
			e.wanted = true
		}
		for range 10 { // until it has what it can get: what is on its way to it is nobody's for now
			m.round()
		}
		if rapid.Bool().Draw(t, "others begin anew") {
			for _, host := range m.hosts {
				m.start(host)
			}
		}
		m.dead[dead] = true
		m.settle()
		alive := slices.DeleteFunc(slices.Clone(m.hosts), func(host sixpn.Host) bool { return host == dead })
		for _, seat := range m.seats() { // what one of the others does not need the other wants
			if from, to := m.kernels[alive[0]][seat], m.kernels[alive[1]][seat]; !from.gone && !to.gone {
				from.live, to.wanted = 0, true
			}
		}
		m.settle()
		for _, seat := range m.seats() {
			from, to := m.kernels[alive[0]][seat], m.kernels[alive[1]][seat]
			if seat.Host != dead && !from.gone && !to.gone && (from.share+to.share+m.having(dead, seat) != m.limits[seat].Hard || to.share < from.share) {
				t.Fatalf("while host %d's agent is dead, host %d does not get what it waits for: %s", dead, alive[1], m.describe(seat))
			}
		}
		m.checkDivisions(flycast.Quiet, dead)
		for _, host := range alive {
			m.views[[2]sixpn.Host{host, dead}] = flycast.Lost
			m.learn(host)
		}
		m.settle()
		m.checkDivisions(flycast.Fenced, dead)
	})
}

// having is how many flows a host has or can begin.
func (m *model) having(host sixpn.Host, seat maps.Seat) uint32 {
	e := m.kernels[host][seat]
	return max(e.share, e.live)
}
