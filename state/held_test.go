package state_test

import (
	"path/filepath"
	"testing"

	"github.com/sixpn/sixpn/state"
)

// TestHeldHostsStayThroughARestart, be it that they were lost before the agent ended or
// while it was away: the last state on disk knows that they were there.
func TestHeldHostsStayThroughARestart(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"lost before": true, "lost while it was away": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _, hosts := fleet(t, 3)
			leases := []heldKey{keepAlive(t, e.Client(), hosts[1]), keepAlive(t, e.Client(), hosts[2])}
			config := state.StoreConfig{Client: e.Client(), Log: logTo(t), Host: hosts[0], File: filepath.Join(directory(t), "last.json")}
			s := openWith(t, config)
			stop := runUntil(t, s)
			lose := func() {
				for _, l := range leases {
					l.revoke(t)
				}
			}
			if before {
				lose()
				until(t, s, "they are held", func(s *state.Snapshot) bool { return s.Alarm() != "" })
				stop()
			} else {
				stop()
				lose()
			}
			again := openWith(t, config)
			if s := again.Snapshot(); s.Alarm() == "" || len(s.Absent) != 0 {
				t.Errorf("absent are %v, the alarm is %q", s.Absent, s.Alarm())
			}
			defer runUntil(t, again)()
			keepAlive(t, e.Client(), hosts[1])
			keepAlive(t, e.Client(), hosts[2])
			until(t, again, "they are back", func(s *state.Snapshot) bool { return s.Alarm() == "" && len(s.Absent) == 0 })
		})
	}
}
