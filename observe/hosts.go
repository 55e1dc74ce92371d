package observe

import (
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

const sectionHosts = "Other hosts"

var (
	hostPresent   = gauge(sectionHosts, "host_present", "Whether another host counts as present, so that names and new flows lead to it", "host")
	hostRoundTrip = gauge(sectionHosts, "host_round_trip_seconds", "Smoothed round trip of echo requests to another host through the mesh; missing while none of the latest is answered", "host")
	hostDeviation = gauge(sectionHosts, "host_round_trip_deviation_seconds", "Mean deviation from it", "host")
	hostLoss      = gauge(sectionHosts, "host_echo_loss_ratio", "Part of the latest 32 echo requests to another host that had no answer", "host")
)

// collectHosts tells of the other hosts by name; beyond the bound nothing is told, for
// a mean over hosts would say nothing.
func (o *Collector) collectHosts(s *state.Snapshot, to *batch) error {
	measured := []flycast.RoundTrip(nil)
	if o.config.RoundTrips != nil {
		measured = o.config.RoundTrips()
	}
	for id, host := range s.Hosts {
		if id != o.config.Host && o.hosts.admits(id) {
			hostPresent.emit(to, number(s.Present(id)), host.Name)
		}
	}
	for _, trip := range measured {
		host, known := s.Hosts[trip.Host]
		if !known || trip.Probes == 0 || !o.hosts.admits(trip.Host) {
			continue
		}
		hostLoss.emit(to, trip.Loss, host.Name)
		if trip.Smoothed > 0 {
			hostRoundTrip.emit(to, trip.Smoothed.Seconds(), host.Name)
			hostDeviation.emit(to, trip.Variation.Seconds(), host.Name)
		}
	}
	return nil
}
