package reconcile

import (
	"time"

	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
)

// Load is what the kernel counts of services and their backends; *maps.Tables has it.
type Load interface {
	Services() ([]maps.PlacedService, error)
	Loads() ([]maps.BackendLoad, error)
}

// seat is a backend of a service, which counts its flows there apart.
type seat struct {
	maps.VIP
	protocol   uint8
	first      uint16
	backend    maps.Backend
	soft, hard uint32
}

// rooms knows how full the backends are whose service has farther ones too. It belongs
// to the goroutine that syncs. Flows fill a backend without any change of a snapshot,
// so somebody has to look; but only where it decides who takes new flows.
type rooms struct {
	load  Load
	known map[seat]flycast.Room // of the compile before
	asked map[seat]flycast.Room // of the compile that goes on, nil: none does
	live  func(seat) uint32     // of that compile, nil: not read yet
	took  time.Duration         // the last look
}

// share is the part of the time that may go into looking, one of so many.
const share = 20

// pause is the time until the next look, of at least so much.
func (r *rooms) pause(least time.Duration) time.Duration { return max(least, share*r.took) }

// begin starts a compile.
func (r *rooms) begin() { r.asked, r.live = map[seat]flycast.Room{}, nil }

// end ends it: what was asked is what is looked after until the next.
func (r *rooms) end() { r.known, r.asked = r.asked, nil }

// ask is Settings.Room. When the load cannot be read a backend counts as before.
func (r *rooms) ask(service maps.Service, backend maps.Backend) flycast.Room {
	s := seat{service.VIP, service.Protocol, service.First, backend, service.SoftLimit, service.HardLimit}
	if r.live == nil {
		if live, err := readLive(r.load); err == nil {
			r.live = live
		}
	}
	room := r.before(s)
	if r.live != nil {
		room = flycast.RoomFor(r.live(s), s.soft, s.hard, room)
	}
	r.asked[s] = room
	return room
}

func (r *rooms) before(s seat) flycast.Room {
	if room, ok := r.known[s]; ok {
		return room
	}
	return flycast.Roomy
}

// decide is whether anything depends on how full backends are.
func (r *rooms) decide() bool { return len(r.known) > 0 }

// changed is whether a backend has more or less room than at the last compile. What
// cannot be read has not changed: tables that are broken fail at the next Sync.
func (r *rooms) changed() bool {
	if !r.decide() {
		return false
	}
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	live, err := readLive(r.load)
	if err != nil {
		return false
	}
	for s, room := range r.known {
		if flycast.RoomFor(live(s), s.soft, s.hard, room) != room {
			return true
		}
	}
	return false
}

// readLive reads how many live flows the clients of this host have with a backend of a
// service; a service that is not in the tables yet has none.
func readLive(load Load) (func(seat) uint32, error) {
	placed, err := load.Services()
	if err != nil {
		return nil, err
	}
	loads, err := load.Loads()
	if err != nil {
		return nil, err
	}
	type name struct {
		maps.VIP
		protocol uint8
	}
	services := map[name][]maps.PlacedService{}
	for _, p := range placed {
		at := name{p.VIP, p.Protocol}
		services[at] = append(services[at], p)
	}
	type counted struct {
		service uint32
		backend maps.Backend
	}
	live := map[counted]uint32{}
	for _, l := range loads {
		if !l.Gone {
			live[counted{l.Service, l.Backend}] = l.Live
		}
	}
	return func(s seat) uint32 {
		for _, p := range services[name{s.VIP, s.protocol}] {
			if p.First <= s.first && s.first <= p.Last {
				return live[counted{p.ID, s.backend}]
			}
		}
		return 0
	}, nil
}
