package state

import (
	"cmp"
	"context"
	"time"

	"github.com/sixpn/sixpn"
)

// Cordon keeps new Flycast flows from a Machine. With the nonce of its lease it ends with
// that lease, so that who is killed in the middle of a change leaves no Machine out for
// ever; one that somebody cordoned for good before stays so. "" is for good.
func (m *Machine) Cordon(nonce string) {
	if !m.Cordoned || m.CordonLease != "" {
		m.Cordoned, m.CordonLease = true, nonce
	}
}

// Uncordon ends a cordon.
func (m *Machine) Uncordon() { m.Cordoned, m.CordonLease = false, "" }

// CordonedAt is whether a Machine is cordoned: one with a lease is not any more when that
// is over or another's, whatever its record still says.
func (m Machine) CordonedAt(at time.Time) bool {
	return m.Cordoned && (m.CordonLease == "" || m.Lease.HeldAt(at) && m.Lease.knows(m.CordonLease))
}

// forgetCordon ends a cordon whose lease is over.
func forgetCordon(m *Machine, at time.Time) {
	if !m.CordonedAt(at) {
		m.Uncordon()
	}
}

// cordonRetry is the default of EndCordons.
const cordonRetry = time.Second

// EndCordons uncordons the Machines of a host whose cordons had a lease that is over,
// until ctx ends. What the store does not take is tried again after retry; 0: 1 s.
func (s *Store) EndCordons(ctx context.Context, host sixpn.Host, retry time.Duration) error {
	retry = cmp.Or(retry, cordonRetry)
	for snapshot := s.Snapshot(); ; {
		due := s.endCordons(ctx, snapshot, host, retry)
		waiting, cancel := ctx, func() {}
		if !due.IsZero() {
			waiting, cancel = context.WithDeadline(ctx, due)
		}
		next, err := s.Next(waiting, snapshot)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			snapshot = next
		}
	}
}

// endCordons ends what is to end now, and returns when to look again; zero: with news.
func (s *Store) endCordons(ctx context.Context, snapshot *Snapshot, host sixpn.Host, retry time.Duration) (due time.Time) {
	for _, m := range snapshot.HostMachines(host) {
		if !m.Cordoned || m.CordonLease == "" {
			continue
		}
		again := time.Now().Add(retry)
		if m.CordonedAt(now()) {
			again = m.Lease.ExpiresAt
		} else {
			// Every write of the record ends it.
			_, _, err := s.UpdateOwnMachine(ctx, host, m.ID, func(*Machine) error { return nil })
			if err == nil || KindOf(err) == NotFound || KindOf(err) == Conflict {
				continue // and the next snapshot says so
			}
			s.log.Warn("a Machine whose lease is over cannot be given back to Flycast yet", "machine", m.ID, "error", err, "again_in", retry)
		}
		if due.IsZero() || again.Before(due) {
			due = again
		}
	}
	return due
}
