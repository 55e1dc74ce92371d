package observe

import (
	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

var (
	backendShare     = gauge(sectionFlycast, "backend_share_flows", "Live flows that this host's clients may have with a backend, of the hard limit of all hosts; missing where there is no such limit", backendLabels...)
	backendElsewhere = gauge(sectionFlycast, "backend_elsewhere_flows", "Live flows of other hosts' clients with a backend, as this host was told last; missing where there are no limits of all hosts", backendLabels...)

	hostFlows  = gauge(sectionHosts, "host_flows", "Live flows of another host's clients with the backends of this host that have limits, as it said last", "host")
	hostShare  = gauge(sectionHosts, "host_share_flows", "Live flows that another host's clients may have with the backends of this host, of their hard limits", "host")
	hostQuiet  = gauge(sectionHosts, "host_quiet_backends", "Backends of this host of which another host keeps its share while its agent does not answer", "host")
	hostFences = gauge(sectionHosts, "host_fenced_backends", "Backends of this host that another host's flows do not get to, since it counted as lost and their places are others'", "host")
)

// shareSum adds up what backends with limits of all hosts have: one, or all beyond a bound.
type shareSum struct {
	share, elsewhere float64
	shared, hard     bool
}

func (s shareSum) plus(host sixpn.Host, d flycast.Division) shareSum {
	s.shared, s.hard = true, s.hard || d.Hard != 0
	s.elsewhere += float64(d.Elsewhere)
	for _, share := range d.Hosts {
		if share.Host == host && d.Hard != 0 {
			s.share += float64(share.Share)
		}
	}
	return s
}

func (s shareSum) emit(to *batch, labels pairs) {
	if s.hard {
		backendShare.emitPairs(to, s.share, labels)
	}
	if s.shared {
		backendElsewhere.emitPairs(to, s.elsewhere, labels)
	}
}

func (o *Collector) divisions() []flycast.Division {
	if o.config.Divisions == nil {
		return nil
	}
	return o.config.Divisions()
}

// divided are the divisions by the element of this host's clients.
func (o *Collector) divided() map[uint32]flycast.Division {
	found := map[uint32]flycast.Division{}
	for _, d := range o.divisions() {
		if d.Element != 0 {
			found[d.Element] = d
		}
	}
	return found
}

// collectShares tells what each other host has of the backends of this one.
func (o *Collector) collectShares(s *state.Snapshot, to *batch) error {
	type sum struct{ flows, share, quiet, fenced float64 }
	sums := map[sixpn.Host]sum{}
	for _, d := range o.divisions() {
		if d.Host != o.config.Host {
			continue
		}
		for _, share := range d.Hosts {
			one := sums[share.Host]
			one.flows += float64(share.Flows)
			if d.Hard != 0 {
				one.share += float64(share.Share)
			}
			one.quiet += number(share.Standing == flycast.Quiet)
			one.fenced += number(share.Standing == flycast.Fenced)
			sums[share.Host] = one
		}
	}
	for id, sum := range sums { // others use no backend of this host, so there is nothing to tell
		host, known := s.Hosts[id]
		if !known || id == o.config.Host || !o.hosts.admits(id) {
			continue
		}
		hostFlows.emit(to, sum.flows, host.Name)
		hostShare.emit(to, sum.share, host.Name)
		hostQuiet.emit(to, sum.quiet, host.Name)
		hostFences.emit(to, sum.fenced, host.Name)
	}
	return nil
}
