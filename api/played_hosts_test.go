package api_test

import (
	"context"
	"errors"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

// playedHosts answer, but for those whose name says that they do not.
type playedHosts struct{ own sixpn.Host }

var playedTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (p playedHosts) Probe(_ context.Context, h state.Host) (api.HostProbe, error) {
	if h.Name == "silent" {
		return api.HostProbe{Host: h.Name, Way: api.HostProbeWayNone, MTU: 1420, Error: "it is silent"}, nil
	}
	return api.HostProbe{Host: h.Name, Way: api.HostProbeWayBoth, MTU: 1420, Passes: 1280, Answers: true, ClockOffsetMs: new(-7.5)}, nil
}

func (p playedHosts) Seen(_ context.Context, hosts []state.Host, ask bool) []api.HostSeen {
	seen := make([]api.HostSeen, len(hosts))
	for i, h := range hosts {
		s := &seen[i]
		if h.ID != p.own {
			s.RoundTrip = flycast.RoundTrip{Host: h.ID, Smoothed: 4200 * time.Microsecond, Probes: 4, Loss: 0.25}
			s.Handshake, s.Heard = playedTime, playedTime.Add(time.Minute)
		}
		switch {
		case h.Name == "silent":
			s.RoundTrip.Smoothed, s.RoundTrip.Loss = 0, 1
			s.Handshake, s.Heard = time.Time{}, time.Time{}
			if ask {
				s.Err = errors.New("it is silent")
			}
		case ask:
			s.Store = api.StoreMemberRoleVoter
			s.Report = &api.HostReport{Version: "v3", Mesh: "kernel", Wanted: 9, Applied: 8, Trouble: "it is behind"}
		}
	}
	return seen
}
