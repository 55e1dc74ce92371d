package observe

import (
	"time"

	"github.com/sixpn/sixpn/state"
)

var (
	hostCount     = gauge(sectionHosts, "hosts", "Hosts of the fleet, this one among them: present ones, those that take no new Machines, and those that are lost", "state")
	uplinkXDP     = gauge(sectionHosts, "uplink_xdp", "Whether XDP takes packets from the uplink of a native mesh this way: 1 of the mode in force, 0 of the others; missing of another mesh", "device", "mode")
	hostHandshake = gauge(sectionHosts, "host_last_handshake_time_seconds", "When the mesh last had a handshake with another host, in seconds since 1970; missing before the first, and of a native mesh", "host")

	clockTime        = gauge(sectionAgent, "clock_time_seconds", "What the host's clock said at the scrape, in seconds since 1970")
	certificateFrom  = gauge(sectionAgent, "certificate_start_time_seconds", "When the certificate begins by which other hosts know this one, in seconds since 1970; missing of a host that is alone")
	certificateUntil = gauge(sectionAgent, "certificate_end_time_seconds", "When it ends; it is renewed when a third of its life is left")

	memberUp = gauge(sectionStore, "store_voter_up", "Whether a voter of the store answered when it was last asked, by its host's name; of hosts that have a member of the store", "host")
)

// Member is a server of the fleet's store.
type Member struct {
	Host    string // its name
	Voter   bool
	Answers bool
}

// collectFleet tells how many hosts there are, and of the ways to them what the mesh says.
func (o *Collector) collectFleet(s *state.Snapshot, to *batch) error {
	count := map[string]int{"present": 0, "draining": 0, "lost": 0}
	for id, host := range s.Hosts {
		switch {
		case !s.Present(id):
			count["lost"]++
		case host.Draining:
			count["draining"]++
		default:
			count["present"]++
		}
	}
	for state, n := range count {
		hostCount.emit(to, float64(n), state)
	}
	if o.config.UplinkXDP != nil {
		device, now := o.config.UplinkXDP()
		for _, mode := range []string{"driver", "generic", "none"} {
			uplinkXDP.emit(to, number(mode == now), device, mode)
		}
	}
	if o.config.Handshakes != nil {
		for id, at := range o.config.Handshakes() {
			if host, known := s.Hosts[id]; known && !at.IsZero() && o.hosts.admits(id) {
				hostHandshake.emit(to, seconds(at), host.Name)
			}
		}
	}
	return nil
}

// collectTrust tells what others go by: this host's clock, its certificate, and the
// members of the store as it sees them.
func (o *Collector) collectTrust(_ *state.Snapshot, to *batch) error {
	clockTime.emit(to, seconds(o.config.Clock()))
	if o.config.Certificate != nil {
		if from, until := o.config.Certificate(); !until.IsZero() {
			certificateFrom.emit(to, seconds(from))
			certificateUntil.emit(to, seconds(until))
		}
	}
	if o.config.Members != nil {
		told := map[string]bool{}
		for _, m := range o.config.Members() {
			if m.Voter && !told[m.Host] && len(told) < maxMembers {
				told[m.Host] = true
				memberUp.emit(to, number(m.Answers), m.Host)
			}
		}
	}
	return nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
