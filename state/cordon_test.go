package state_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// A cordon with a lease lasts as long as that lease; one without stays.
func TestCordonWithLease(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	store := open(t, e)
	run(t, store)
	w := populate(t, store)
	for _, row := range []struct {
		name     string
		before   func(*state.Machine)                  // what the Machine is when it is leased
		then     func(m state.Machine, l string) error // what happens to the lease
		cordoned bool
	}{
		{name: "nothing happens", cordoned: true},
		{name: "renewed", cordoned: true, then: func(m state.Machine, l string) error {
			_, _, err := w.AcquireLease(within(t), m.ID, state.LeaseRequest{Nonce: l, TTL: time.Hour})
			return err
		}},
		{name: "released", then: func(m state.Machine, l string) error {
			_, err := w.ReleaseLease(within(t), m.ID, l)
			return err
		}},
		{name: "over, and another's", then: func(m state.Machine, _ string) error {
			expire(t, e, m)
			_, _, err := w.AcquireLease(within(t), m.ID, state.LeaseRequest{})
			return err
		}},
		{name: "over, and the Machine changed", then: func(m state.Machine, _ string) error {
			expire(t, e, m)
			_, _, err := w.UpdateMachine(within(t), m.ID, count)
			return err
		}},
		{name: "cordoned for good before", before: func(m *state.Machine) { m.Cordon("") }, cordoned: true, then: func(m state.Machine, l string) error {
			_, err := w.ReleaseLease(within(t), m.ID, l)
			return err
		}},
		{name: "cordoned for good meanwhile", cordoned: true, then: func(m state.Machine, l string) error {
			_, _, err := w.ChangeMachine(within(t), m.ID, l, func(m *state.Machine) error { m.Cordon(""); return nil })
			if err == nil {
				_, err = w.ReleaseLease(within(t), m.ID, l)
			}
			return err
		}},
	} {
		m := w.machine(t, "")
		if row.before != nil {
			_, _, err := w.ChangeMachine(within(t), m.ID, "", func(m *state.Machine) error { row.before(m); return nil })
			must(t, err)
		}
		lease, _, err := w.AcquireLease(within(t), m.ID, state.LeaseRequest{TTL: time.Minute})
		must(t, err)
		_, _, err = w.ChangeMachine(within(t), m.ID, lease.Nonce, func(m *state.Machine) error { m.Cordon(lease.Nonce); return nil })
		must(t, err)
		if row.then != nil {
			must(t, row.then(m, lease.Nonce))
		}
		_, revision, err := w.UpdateMachine(within(t), m.ID, func(*state.Machine) error { return nil })
		must(t, err)
		last := at(t, w.Store, revision).Machines[m.ID]
		if last.Cordoned != row.cordoned || last.CordonedAt(time.Now()) != row.cordoned {
			t.Errorf("%s: it is cordoned: %v, expected %v", row.name, last.Cordoned, row.cordoned)
		}
		want := "uncordon"
		if row.cordoned {
			want = "cordon"
		}
		for _, e := range last.Events {
			if e.Type == "cordon" || e.Type == "uncordon" {
				if e.Type != want {
					t.Errorf("%s: the latest event of its kind is %s, expected %s", row.name, e.Type, want)
				}
				break
			}
		}
	}
}

// Nobody does anything: the host itself gives its Machines back, and no others.
func TestEndCordons(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() { ended <- w.EndCordons(ctx, w.host.ID, 0) }()
	cordon := func(ttl time.Duration, with bool) string {
		m := w.machine(t, "")
		lease, _, err := w.AcquireLease(ctx, m.ID, state.LeaseRequest{TTL: ttl})
		must(t, err)
		nonce := ""
		if with {
			nonce = lease.Nonce
		}
		_, _, err = w.ChangeMachine(ctx, m.ID, lease.Nonce, func(m *state.Machine) error { m.Cordon(nonce); return nil })
		must(t, err)
		return m.ID
	}
	long, short, good := cordon(time.Hour, true), cordon(state.MinLeaseTTL, true), cordon(state.MinLeaseTTL, false)
	for snapshot := w.Snapshot(); snapshot.Machines[short].ID == "" || snapshot.Machines[short].Cordoned || len(snapshot.Machines) < 3; {
		var err error
		snapshot, err = w.Next(ctx, snapshot)
		must(t, err)
	}
	for _, id := range []string{long, good} {
		if !w.Snapshot().Machines[id].Cordoned {
			t.Errorf("Machine %s is not cordoned any more", id)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
