package flycast_test

import (
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// TestCheckLatest: what a check says is known at once, also when its record has to wait, and
// by nobody once nobody asks.
func TestCheckLatest(t *testing.T) {
	t.Parallel()
	const burst = 5 // writes that may follow each other
	r, s, broken := newRecords(checked(state.Check{Type: "tcp", Interval: 5 * time.Millisecond})), &switchable{}, false
	p := newProber(t, r, s.connect, nil)
	until(t, p, "a check passes while its record says critical", func() bool {
		latest := p.Latest(checkedID)
		if len(latest) != 1 {
			return false
		}
		if latest[0].Status == status(r) { // it is written: the next change
			broken = !broken
			s.set(broken)
		}
		return r.written() >= burst && latest[0].Status == state.CheckPassing && status(r) == state.CheckCritical
	})
	if latest := p.Latest(checkedID); latest != nil {
		t.Errorf("once nobody asks, the checks say %+v", latest)
	}
}
