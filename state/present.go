package state

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sixpn/sixpn"
)

// Present says whether a host takes new flows and is in answers: its lease lives, or it
// lost it together with so many others that the store is the likelier cause (see
// Alarm). A host is always present to itself; a host that never had a lease is not. To
// a store that was not told which host it is on, all are.
func (s *Snapshot) Present(h sixpn.Host) bool { return !s.Absent[h] }

// AbsentSince is when the lease of a host that is absent ended, as this Store saw it;
// zero if it saw nothing of it.
func (s *Snapshot) AbsentSince(h sixpn.Host) time.Time { return s.left[h] }

// Alarm says why hosts count as present though their leases are over, or why what the
// store says is not believed; "" when there is no reason to.
func (s *Snapshot) Alarm() string {
	return strings.Join(slices.DeleteFunc([]string{s.lostAll, s.refusal}, func(a string) bool { return a == "" }), "; ")
}

// holdTogether is which hosts keep their place though their lease is over. When at
// least two of them, and at least a third of all hosts, lost it within one window, they
// all do, until they return or are removed. lost is when each lease ended, of those
// that were alive before.
func holdTogether(hosts map[sixpn.Host]Host, alive map[sixpn.Host]presence, held map[sixpn.Host]bool,
	lost map[sixpn.Host]time.Time, at time.Time, window time.Duration,
) map[sixpn.Host]bool {
	next := map[sixpn.Host]bool{}
	var together []sixpn.Host
	for h := range hosts {
		if _, ok := alive[h]; ok {
			continue
		}
		if held[h] {
			next[h] = true
		}
		if ended, ok := lost[h]; ok && at.Sub(ended) <= window {
			together = append(together, h)
		}
	}
	if len(together) >= 2 && 3*len(together) >= len(hosts) {
		for _, h := range together {
			next[h] = true
		}
	}
	return next
}

// absentHosts is the hosts that are not present as seen from self, 0 for nowhere. Who is
// held is there whatever became of its lease.
func absentHosts(hosts map[sixpn.Host]Host, alive map[sixpn.Host]presence, held map[sixpn.Host]bool, self sixpn.Host) map[sixpn.Host]bool {
	absent := map[sixpn.Host]bool{}
	if self == 0 {
		return absent
	}
	for h := range hosts {
		if _, ok := alive[h]; !ok && !held[h] && h != self {
			absent[h] = true
		}
	}
	return absent
}

// departures is when the leases of those ended who are absent: as this Store saw it of
// late, or before.
func departures(absent map[sixpn.Host]bool, lost, before map[sixpn.Host]time.Time) map[sixpn.Host]time.Time {
	left := map[sixpn.Host]time.Time{}
	for h := range absent {
		if ended, ok := lost[h]; ok {
			left[h] = ended
		} else if ended, ok := before[h]; ok {
			left[h] = ended
		}
	}
	return left
}

// heldAlarm is what to say of hosts that are held.
func heldAlarm(hosts map[sixpn.Host]Host, held map[sixpn.Host]bool) string {
	if len(held) == 0 {
		return ""
	}
	var names []string
	for h := range held {
		names = append(names, hosts[h].Name)
	}
	slices.Sort(names)
	if len(names) > maxNamed {
		names = append(names[:maxNamed], "…")
	}
	return fmt.Sprintf("%d of %d hosts lost their leases together (%s), so their last tables stay: look after the store, and the network between it and these hosts; take out one that is gone for good with `sixpn hosts remove`",
		len(held), len(hosts), strings.Join(names, ", "))
}

// maxNamed is how many hosts an alarm names.
const maxNamed = 5

// SetHost says which host this store is on, for Present. It is the Store's, not the
// store's: nothing is written.
func (s *Store) SetHost(h sixpn.Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.self == h {
		return
	}
	s.self = h
	next := *s.snapshot
	next.Absent = absentHosts(next.Hosts, next.alive, s.kept(&next, time.Now()), s.self)
	s.replace(&next)
	s.ask()
}
