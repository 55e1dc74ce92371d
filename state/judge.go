package state

import (
	"context"
	"maps"
	"time"

	"github.com/sixpn/sixpn"
)

// judge fills in what follows from the leases of a snapshot that is not published yet.
// The caller holds the lock, as those of kept and doubt do.
func (s *Store) judge(next *Snapshot) {
	at := time.Now()
	if s.snapshot != nil {
		for h := range s.snapshot.alive {
			if _, ok := next.alive[h]; !ok {
				s.lost[h] = at
			}
		}
	}
	maps.DeleteFunc(s.lost, func(h sixpn.Host, ended time.Time) bool {
		_, returned := next.alive[h]
		_, exists := next.Hosts[h]
		return returned || !exists || at.Sub(ended) > max(s.window, s.grace)
	})
	next.held = holdTogether(next.Hosts, next.alive, next.held, s.lost, at, s.window)
	next.Absent = absentHosts(next.Hosts, next.alive, s.kept(next, at), s.self)
	s.doubt(at)
	before := ""
	if s.snapshot != nil {
		before = s.snapshot.lostAll
		next.left = departures(next.Absent, s.lost, s.snapshot.left)
	}
	if next.lostAll = heldAlarm(next.Hosts, next.held); next.lostAll != "" && next.lostAll != before {
		s.log.Error("hosts are lost together", "alarm", next.lostAll)
	} else if next.lostAll == "" && before != "" {
		s.log.Info("the hosts that were lost together are back, or removed")
	}
}

// kept is who stays though its lease is over: the held ones, and those whose lease ended
// so recently that others may still follow.
func (s *Store) kept(of *Snapshot, at time.Time) map[sixpn.Host]bool {
	kept := map[sixpn.Host]bool{}
	maps.Copy(kept, of.held)
	for h, ended := range s.lost {
		if at.Sub(ended) < s.grace {
			kept[h] = true
		}
	}
	return kept
}

// doubt has keepJudging look again if there is somebody whose grace is not over.
func (s *Store) doubt(at time.Time) {
	if s.due(at).IsZero() {
		return
	}
	select {
	case s.doubts <- struct{}{}:
	default: // it will look anyway
	}
}

// due is when the next grace is over that is not over yet, zero if all are.
func (s *Store) due(at time.Time) (next time.Time) {
	for _, ended := range s.lost {
		if over := ended.Add(s.grace); over.After(at) && (next.IsZero() || over.Before(next)) {
			next = over
		}
	}
	return next
}

// keepJudging judges again, without anything new from the store, whenever the grace of a
// host is over, until the context ends.
func (s *Store) keepJudging(ctx context.Context) {
	for {
		s.mu.Lock()
		due := s.due(time.Now())
		s.mu.Unlock()
		var over <-chan time.Time
		if !due.IsZero() {
			over = time.After(time.Until(due))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.doubts:
			continue
		case <-over:
		}
		s.mu.Lock()
		next := *s.snapshot
		s.judge(&next)
		if next.lostAll != s.snapshot.lostAll || !maps.Equal(next.Absent, s.snapshot.Absent) {
			s.replace(&next)
		}
		s.mu.Unlock()
	}
}
