package flycast

import (
	"cmp"
	stdmaps "maps"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/maps"
)

// Division is how the limits of one backend are divided among hosts, as far as this host
// knows: all of it for a backend of its own, else what its own clients have.
type Division struct {
	maps.Seat
	maps.Limits
	Element   uint32      // maps.SeatLoad's of this host's clients; 0: they have none
	Elsewhere uint32      // live flows of other hosts' clients, as this host was told last
	Hosts     []HostShare // in the order of their numbers
}

// HostShare is what one host's clients have of a backend.
type HostShare struct {
	Host     sixpn.Host
	Flows    uint32 // live, as that host said last; 0 if it has not since this agent began
	Share    uint32 // flows that it may have, or come to have, of the hard limit
	Wanted   bool   // a flow waits there for a larger one
	Standing Standing
}

// Standing is how a backend's host stands to a host with clients of it.
type Standing uint8

// From best to worst.
const (
	Agreed Standing = iota
	Quiet           // its agent does not answer, so it keeps what it has
	Fenced          // it counted as lost, and its places are others': no packet of its flows passes
)

func (s Standing) String() string { return [...]string{"agreed", "quiet", "fenced"}[s] }

// Divisions is what the exchange knows of all seats, in the order of CompareSeats.
func (x *Exchange) Divisions() []Division {
	all := map[maps.Seat]*Division{}
	for seat, limits := range x.limits {
		all[seat] = &Division{Seat: seat, Limits: limits}
	}
	for _, s := range x.seats {
		d := all[s.Seat]
		if d == nil {
			d = &Division{Seat: s.Seat, Limits: s.Limits}
			all[s.Seat] = d
		}
		d.Element, d.Elsewhere = s.Element, s.Elsewhere
		d.Hosts = append(d.Hosts, HostShare{Host: x.self, Flows: s.Live + s.Ending, Share: held(s), Wanted: x.waits(s)})
	}
	for host, p := range x.peers {
		for seat, h := range p.holds {
			d := all[seat]
			if d == nil || x.fences[seat.Fence(host)] || h.bound() == 0 && !h.listed {
				continue
			}
			share := HostShare{Host: host, Flows: h.live, Share: h.bound(), Wanted: h.wanted}
			if p.mute || p.silent || !p.known {
				share.Standing = Quiet
			}
			d.Hosts = append(d.Hosts, share)
			if d.Element == 0 {
				d.Elsewhere += h.live
			}
		}
	}
	for fence := range x.fences { // there are few, and seldom any
		for seat, d := range all {
			if seat.Host == x.self && seat.Fence(fence.Client) == fence {
				d.Hosts = append(d.Hosts, HostShare{Host: fence.Client, Standing: Fenced})
			}
		}
	}
	list := make([]Division, 0, len(all))
	for _, seat := range slices.SortedFunc(stdmaps.Keys(all), maps.CompareSeats) {
		d := all[seat]
		slices.SortFunc(d.Hosts, func(a, b HostShare) int { return cmp.Compare(a.Host, b.Host) })
		list = append(list, *d)
	}
	return list
}
