package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

func count(m *state.Machine) error { m.Restarts++; return nil }

// expire lets the lease of a Machine end now: it writes the record as the store does.
func expire(t *testing.T, e *state.Embedded, m state.Machine) {
	t.Helper()
	key := fmt.Sprintf("/sixpn/v1/networks/%08x/machines/%s", uint32(m.Network), m.ID)
	r, err := e.Client().Get(within(t), key)
	must(t, err)
	record, err := state.Decode[state.Machine](r.Kvs[0].Value, 0)
	must(t, err)
	record.Value.Lease.ExpiresAt = time.Now().Add(-time.Second)
	encoded, err := json.Marshal(record.Value)
	must(t, err)
	_, err = e.Client().Put(within(t), key, string(encoded))
	must(t, err)
}

func TestLeaseFences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := within(t)
	m := w.machine(t, "web-1")
	lease, revision, err := w.AcquireLease(ctx, m.ID, state.LeaseRequest{TTL: time.Minute, Owner: "me", Description: "deploy"})
	must(t, err)
	stored := at(t, w.Store, revision).Machines[m.ID]
	if stored.Lease == nil || stored.Lease.Nonce != lease.Nonce || len(lease.Nonce) < 26 || lease.Version != m.InstanceID {
		t.Errorf("the lease is %+v, stored as %+v", lease, stored.Lease)
	}
	if left := time.Until(lease.ExpiresAt); left < 50*time.Second || left > time.Minute {
		t.Errorf("the lease ends in %v, want a minute", left)
	}

	for name, nonce := range map[string]string{"none": "", "another": "0" + lease.Nonce[1:], "longer": lease.Nonce + "0", "shorter": lease.Nonce[:25]} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.ChangeMachine(within(t), m.ID, nonce, count)
			refused(t, err, state.Conflict, "lease")
			_, err = w.ReleaseLease(within(t), m.ID, nonce)
			refused(t, err, state.Conflict, "lease")
			_, _, err = w.AcquireLease(within(t), m.ID, state.LeaseRequest{Nonce: nonce})
			refused(t, err, state.Conflict, "lease")
			if strings.Contains(err.Error(), lease.Nonce) {
				t.Errorf("the refusal gives the nonce away: %v", err)
			}
		})
	}
	changed, _, err := w.ChangeMachine(ctx, m.ID, lease.Nonce, count)
	must(t, err)
	updated, _, err := w.UpdateMachine(ctx, m.ID, count) // the host's, which no lease holds up
	must(t, err)
	if changed.Restarts != 1 || updated.Restarts != 2 || updated.Lease == nil || updated.Lease.Nonce != lease.Nonce {
		t.Errorf("the Machine is %+v after two changes", updated)
	}

	longer, _, err := w.AcquireLease(ctx, m.ID, state.LeaseRequest{Nonce: lease.Nonce, TTL: time.Hour})
	must(t, err)
	if longer.Nonce != lease.Nonce || longer.Owner != "me" || longer.Description != "deploy" || time.Until(longer.ExpiresAt) < 50*time.Minute {
		t.Errorf("taken again, the lease is %+v", longer)
	}
	_, err = w.ReleaseLease(ctx, m.ID, lease.Nonce)
	must(t, err)
	_, err = w.ReleaseLease(ctx, m.ID, lease.Nonce)
	refused(t, err, state.NotFound, "lease")
	_, _, err = w.ChangeMachine(ctx, m.ID, lease.Nonce, count)
	refused(t, err, state.Conflict, "lease")
	_, _, err = w.ChangeMachine(ctx, m.ID, "", count)
	must(t, err)
}

// TestLeaseEnds: a lease that is over keeps nobody out, and fences its holder.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	w := populate(t, open(t, e))
	ctx := within(t)
	m := w.machine(t, "web-1")
	lease, _, err := w.AcquireLease(ctx, m.ID, state.LeaseRequest{})
	must(t, err)
	expire(t, e, m)
	_, _, err = w.ChangeMachine(ctx, m.ID, lease.Nonce, count)
	refused(t, err, state.Conflict, "lease")
	_, _, err = w.ChangeMachine(ctx, m.ID, "", count)
	must(t, err)
	// Nobody took another, so it may go on.
	_, _, err = w.AcquireLease(ctx, m.ID, state.LeaseRequest{Nonce: lease.Nonce})
	must(t, err)
	expire(t, e, m)
	next, _, err := w.AcquireLease(ctx, m.ID, state.LeaseRequest{})
	must(t, err)
	if next.Nonce == lease.Nonce {
		t.Error("two leases have the same nonce")
	}
	_, _, err = w.AcquireLease(ctx, m.ID, state.LeaseRequest{Nonce: lease.Nonce})
	refused(t, err, state.Conflict, "lease")
	_, err = w.ReleaseLease(ctx, m.ID, lease.Nonce)
	refused(t, err, state.Conflict, "lease")
	_, _, err = w.ChangeMachine(ctx, m.ID, next.Nonce, count)
	must(t, err)
}

func TestLeaseRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machine(t, "web-1")
	for name, row := range map[string]struct {
		field string
		ask   state.LeaseRequest
	}{
		"ttl: shortest":        {"", state.LeaseRequest{TTL: time.Second}},
		"ttl: short":           {"ttl", state.LeaseRequest{TTL: time.Second - 1}},
		"ttl: negative":        {"ttl", state.LeaseRequest{TTL: -time.Minute}},
		"ttl: longest":         {"", state.LeaseRequest{TTL: 24 * time.Hour}},
		"ttl: long":            {"ttl", state.LeaseRequest{TTL: 24*time.Hour + 1}},
		"owner: longest":       {"", state.LeaseRequest{Owner: strings.Repeat("a", 256)}},
		"owner: long":          {"owner", state.LeaseRequest{Owner: strings.Repeat("a", 257)}},
		"owner: control":       {"owner", state.LeaseRequest{Owner: "a\nb"}},
		"description: no UTF8": {"description", state.LeaseRequest{Description: "\xff"}},
	} {
		t.Run(name, func(t *testing.T) {
			lease, _, err := w.AcquireLease(within(t), m.ID, row.ask)
			if row.field != "" {
				refused(t, err, state.Invalid, row.field)
				return
			}
			must(t, err)
			_, err = w.ReleaseLease(within(t), m.ID, lease.Nonce)
			must(t, err)
		})
	}
	_, _, err := w.AcquireLease(within(t), m.ID, state.LeaseRequest{Nonce: "mine"})
	refused(t, err, state.Conflict, "lease") // a nonce is never the client's choice
	_, _, err = w.AcquireLease(within(t), "00000000000000", state.LeaseRequest{})
	refused(t, err, state.NotFound, "id")

	n := w.newMachine("web-2")
	n.Lease = &state.LeaseRequest{Owner: "me", TTL: time.Minute}
	leased, _, err := w.CreateMachine(within(t), n)
	must(t, err)
	_, _, err = w.ChangeMachine(within(t), leased.ID, "", count)
	refused(t, err, state.Conflict, "lease")
	_, _, err = w.ChangeMachine(within(t), leased.ID, leased.Lease.Nonce, count)
	must(t, err)
	n.Name, n.Lease = "web-3", &state.LeaseRequest{Nonce: "mine"}
	_, _, err = w.CreateMachine(within(t), n)
	refused(t, err, state.Invalid, "nonce")
}

// TestLeasesExclude lets many take the lease of one Machine, read, write and give it
// back, while its host and users without a lease write too. Whoever has the lease
// finds the Machine as it left it, and nothing that was acknowledged is lost.
func TestLeasesExclude(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machine(t, "web-1")
	const rounds = 3
	var holders, updates, changes atomic.Int64
	zero := 0
	_, _, err := w.UpdateMachine(within(t), m.ID, func(m *state.Machine) error { m.ExitCode = &zero; return nil })
	must(t, err)
	together(contenders, func(i int) struct{} {
		s := w.contender(i)
		for round := 0; round < rounds; {
			lease, _, err := s.AcquireLease(within(t), m.ID, state.LeaseRequest{TTL: time.Minute})
			if state.KindOf(err) == state.Conflict {
				// One that no lease holds up, one that every lease does.
				if _, _, err := s.UpdateMachine(within(t), m.ID, count); err != nil {
					t.Error(err)
				}
				updates.Add(1)
				_, _, err := s.ChangeMachine(within(t), m.ID, "", func(m *state.Machine) error {
					m.ExitCode = new(*m.ExitCode + 1)
					return nil
				})
				if err == nil {
					changes.Add(1)
				} else if state.KindOf(err) != state.Conflict {
					t.Error(err)
				}
				continue
			}
			if err != nil {
				t.Error(err)
				return struct{}{}
			}
			if n := holders.Add(1); n != 1 {
				t.Errorf("%d hold the lease at once", n)
			}
			mine := fmt.Sprintf("%d/%d", i, round)
			_, _, err = s.ChangeMachine(within(t), m.ID, lease.Nonce, func(m *state.Machine) error { m.Message = mine; return nil })
			if err == nil {
				_, _, err = s.ChangeMachine(within(t), m.ID, lease.Nonce, func(m *state.Machine) error {
					if m.Message != mine {
						return fmt.Errorf("the holder of the lease finds %q, left %q", m.Message, mine)
					}
					return nil
				})
			}
			holders.Add(-1)
			if _, releaseErr := s.ReleaseLease(within(t), m.ID, lease.Nonce); errors.Join(err, releaseErr) != nil {
				t.Error(err, releaseErr)
			}
			round++
		}
		return struct{}{}
	})
	if updates.Load() == 0 {
		t.Error("nobody met another's lease: nothing is tested")
	}
	after, _, err := w.UpdateMachine(within(t), m.ID, func(*state.Machine) error { return nil })
	must(t, err)
	if got := int64(*after.ExitCode); got != changes.Load() {
		t.Errorf("%d changes of users without a lease are there, want %d", got, changes.Load())
	}
	if after.Lease != nil {
		t.Errorf("the lease is still there: %+v", after.Lease)
	}
	if got := int64(after.Restarts); got != updates.Load() {
		t.Errorf("%d updates of the host are there, want %d", got, updates.Load())
	}
}
