package state

import (
	"context"
	"errors"
	"time"
)

// Whoever builds one of these for good deletes it here; the file goes with the last.

// LeaseRequest is what AcquireLease is asked for.
type LeaseRequest struct {
	Nonce       string // of the lease that is held, to renew it
	TTL         time.Duration
	Owner       string
	Description string
}

var errAhead = errors.New("the store cannot do this yet")

// Deleted is the Machines of an app that were destroyed lately.
func (s *Snapshot) Deleted(string) []Machine { return nil }

// DeleteNetwork is ahead of its time.
func (s *Store) DeleteNetwork(context.Context, string, string) (int64, error) { return 0, errAhead }

// DeleteOrg is ahead of its time.
func (s *Store) DeleteOrg(context.Context, string) (int64, error) { return 0, errAhead }

// MoveApp is ahead of its time.
func (s *Store) MoveApp(context.Context, string, string, string) (App, int64, error) {
	return App{}, 0, errAhead
}

// DestroyApp is ahead of its time.
func (s *Store) DestroyApp(context.Context, string) (int64, error) { return 0, errAhead }

// AcquireLease is ahead of its time.
func (s *Store) AcquireLease(context.Context, string, LeaseRequest) (Lease, int64, error) {
	return Lease{}, 0, errAhead
}

// ReleaseLease is ahead of its time.
func (s *Store) ReleaseLease(context.Context, string, string) (int64, error) { return 0, errAhead }

// ChangeMachine is UpdateMachine so far.
func (s *Store) ChangeMachine(ctx context.Context, id, _ string, change func(*Machine) error) (Machine, int64, error) {
	return s.UpdateMachine(ctx, id, change)
}
