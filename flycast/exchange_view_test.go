package flycast_test

import (
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
)

// division is what the agent of a seat's host shows of its users.
func (m *model) division(seat maps.Seat) []flycast.HostShare {
	for _, d := range m.agents[seat.Host].Divisions() {
		if d.Seat == seat {
			return d.Hosts
		}
	}
	return nil
}

// checkDivisions compares what the agents of seats' hosts show with what the kernels have.
// Hosts of which there is a list stand so, the others are agreed with.
func (m *model) checkDivisions(standing flycast.Standing, hosts ...sixpn.Host) {
	for _, seat := range m.seats() {
		if slices.Contains(hosts, seat.Host) {
			continue
		}
		shown := m.division(seat)
		for _, host := range m.hosts {
			want := flycast.HostShare{Host: host}
			if e := m.kernels[host][seat]; e != nil && !e.gone {
				want.Flows, want.Share = e.live, m.having(host, seat)
			}
			there := want.Share > 0
			if slices.Contains(hosts, host) {
				want.Standing = standing
				if standing == flycast.Fenced {
					there, want.Flows, want.Share = m.fences[seat.Host][seat.Fence(host)], 0, 0
				}
			}
			i := slices.IndexFunc(shown, func(s flycast.HostShare) bool { return s.Host == host })
			if i < 0 {
				if there {
					m.Fatalf("of host %d nothing is shown, expected %+v: %s", host, want, m.describe(seat))
				}
				continue
			}
			got := shown[i]
			got.Wanted = false // who waits is forgotten after a while
			if standing == flycast.Quiet && host == hosts[0] && got.Flows == 0 {
				want.Flows = 0 // it has not said it to the present run
			}
			if got != want {
				m.Fatalf("of host %d is shown %+v, expected %+v: %s", host, got, want, m.describe(seat))
			}
		}
	}
}
