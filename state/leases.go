package state

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// How long a lease lasts.
const (
	DefaultLeaseTTL = time.Hour
	MinLeaseTTL     = time.Second
	MaxLeaseTTL     = 24 * time.Hour
)

const maxLeaseText = 256 // bytes of an owner or a description

// LeaseRequest asks for a lease of a Machine, or for more time of one.
type LeaseRequest struct {
	Nonce       string        // of the lease that goes on; empty for a new one
	TTL         time.Duration // from now; 0: DefaultLeaseTTL
	Owner       string        // for people, like Description
	Description string
}

// HeldAt is whether a lease is in force. None is not.
func (l *Lease) HeldAt(at time.Time) bool { return l != nil && at.Before(l.ExpiresAt) }

// knows is whether a nonce is that of the lease.
func (l *Lease) knows(nonce string) bool {
	return l != nil && nonce != "" && subtle.ConstantTimeCompare([]byte(l.Nonce), []byte(nonce)) == 1
}

// AcquireLease keeps everyone else from changing a Machine for a while. It is refused
// with kind Conflict while another lease is in force. With the nonce of the latest
// lease that one goes on, if nobody has taken another one since.
func (s *Store) AcquireLease(ctx context.Context, id string, r LeaseRequest) (Lease, int64, error) {
	if err := validateLease(r); err != nil {
		return Lease{}, 0, err
	}
	var lease Lease
	revision, err := s.transact(ctx, id, "lease machine "+id, func(t *transaction) error {
		m, err := t.machine(id)
		if err != nil {
			return err
		}
		at := now()
		next := newLease(r, m.Value, at)
		switch held := m.Value.Lease; {
		case held.knows(r.Nonce):
			next.Nonce, next.Version = held.Nonce, held.Version
			next.Owner, next.Description = cmp.Or(r.Owner, held.Owner), cmp.Or(r.Description, held.Description)
		case r.Nonce != "":
			return lost(m.Value, at)
		case held.HeldAt(at):
			return leased(m.Value)
		}
		lease = *next
		return t.writeLease(m, next, at)
	})
	if err != nil {
		return Lease{}, 0, err
	}
	return lease, revision, nil
}

// ReleaseLease ends a lease before its time. The error is of kind NotFound when none
// is in force, Conflict when another one is.
func (s *Store) ReleaseLease(ctx context.Context, id, nonce string) (int64, error) {
	return s.transact(ctx, id, "release the lease of machine "+id, func(t *transaction) error {
		m, err := t.machine(id)
		if err != nil {
			return err
		}
		at := now()
		switch held := m.Value.Lease; {
		case held.knows(nonce):
		case held.HeldAt(at):
			return leased(m.Value)
		default:
			return refuse(NotFound, "lease", "machine %s has no lease: there is nothing to release", id)
		}
		return t.writeLease(m, nil, at)
	})
}

// writeLease gives a Machine another lease, or none, and ends what was only for that of
// before.
func (t *transaction) writeLease(r Record[Machine], next *Lease, at time.Time) error {
	before := r.Value
	r.Value.Lease, r.Value.UpdatedAt = next, at
	forgetCordon(&r.Value, at)
	r.Value.Events = eventsOf(before, r.Value, sourceHost)
	return write(t, keyMachine(r.Value.Network, r.Value.ID), r)
}

// newLease has a nonce that nobody can guess: 26 random letters and digits.
func newLease(r LeaseRequest, m Machine, at time.Time) *Lease {
	return &Lease{
		Nonce: rand.Text(), Owner: r.Owner, Description: r.Description, Version: m.InstanceID,
		ExpiresAt: at.Add(cmp.Or(r.TTL, DefaultLeaseTTL)),
	}
}

// fence decides whether a user may change a Machine.
func fence(m Machine, nonce string, at time.Time) error {
	switch held := m.Lease.HeldAt(at); {
	case held && m.Lease.knows(nonce), !held && nonce == "":
		return nil
	case nonce != "":
		return lost(m, at)
	default:
		return leased(m)
	}
}

func leased(m Machine) error {
	by, why := "", ""
	if m.Lease.Owner != "" {
		by = " by " + m.Lease.Owner
	}
	if m.Lease.Description != "" {
		why = " (" + m.Lease.Description + ")"
	}
	return refuse(Conflict, "lease", "machine %s is leased%s%s until %s: wait until then, or give the lease's nonce",
		m.ID, by, why, m.Lease.ExpiresAt.Format(time.RFC3339))
}

func lost(m Machine, at time.Time) error {
	if m.Lease.HeldAt(at) {
		return refuse(Conflict, "lease", "the nonce is not that of the lease of machine %s, which is another's until %s: take a new lease then",
			m.ID, m.Lease.ExpiresAt.Format(time.RFC3339))
	}
	return refuse(Conflict, "lease", "the lease of machine %s is over: take a new one, without a nonce", m.ID)
}

func validateLease(r LeaseRequest) error {
	if r.TTL != 0 && (r.TTL < MinLeaseTTL || r.TTL > MaxLeaseTTL) {
		return refuse(Invalid, "ttl", "%v is out of range: expected %v to %v, or 0 for %v", r.TTL, MinLeaseTTL, MaxLeaseTTL, DefaultLeaseTTL)
	}
	for field, text := range map[string]string{"owner": r.Owner, "description": r.Description} {
		if len(text) > maxLeaseText || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return refuse(Invalid, field, "%.40q is not a text for people: expected at most %d bytes, printable", text, maxLeaseText)
		}
	}
	return nil
}
