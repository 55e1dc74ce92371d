package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// fast is presence for tests; the store keeps no lease shorter than two seconds.
var fast = state.PresenceConfig{TTL: 2 * time.Second, Interval: 20 * time.Millisecond}

// keeping runs KeepAlive until stop, which returns how it ended.
func keeping(t *testing.T, s *state.Store, h sixpn.Host) (stop func() error, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.KeepAlive(ctx, h, fast) }()
	t.Cleanup(cancel)
	return func() error { cancel(); return <-done }, done
}

// until waits for a snapshot of which something is true.
func until(t *testing.T, s *state.Store, what string, is func(*state.Snapshot) bool) *state.Snapshot {
	t.Helper()
	ctx := within(t)
	for snapshot := s.Snapshot(); ; {
		if is(snapshot) {
			return snapshot
		}
		next, err := s.Wait(ctx, snapshot.Revision)
		if err != nil {
			t.Fatalf("%s: %v; hosts %v, absent %v, alarm %q", what, err, snapshot.Hosts, snapshot.Absent, snapshot.Alarm())
		}
		snapshot = next
	}
}

// fleet is so many hosts, the first of which watches and is where the test is.
func fleet(t *testing.T, hosts int) (*state.Embedded, *state.Store, []sixpn.Host) {
	t.Helper()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	var ids []sixpn.Host
	for i := range hosts {
		h, _, err := s.RegisterHost(within(t), fmt.Sprint("host-", i+1), "fra", 0)
		must(t, err)
		ids = append(ids, h.ID)
	}
	s.SetHost(ids[0])
	return e, s, ids
}

func TestPresenceFollowsTheLease(t *testing.T) {
	t.Parallel()
	e, s, hosts := fleet(t, 2)
	never := until(t, s, "two hosts", func(s *state.Snapshot) bool { return len(s.Hosts) == 2 })
	if !never.Present(hosts[0]) || never.Present(hosts[1]) || !never.AbsentSince(hosts[1]).IsZero() {
		t.Errorf("before there was a lease, absent are %v, since %v; want %v alone", never.Absent, never.AbsentSince(hosts[1]), hosts[1])
	}
	other := open(t, e)
	stop, _ := keeping(t, other, hosts[1])
	until(t, s, "its lease lives", func(s *state.Snapshot) bool { return s.Present(hosts[1]) })
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("KeepAlive ended with %v, want the context's error", err)
	}
	// Nobody gives it back: it ends by itself.
	began := time.Now()
	gone := until(t, s, "its lease is over", func(s *state.Snapshot) bool { return !s.Present(hosts[1]) })
	if gone.Alarm() != "" {
		t.Errorf("one host of two raised the alarm %q", gone.Alarm())
	}
	since := gone.AbsentSince(hosts[1])
	if since.Before(began) || since.After(time.Now()) {
		t.Errorf("it is away since %v, the test waited from %v on", since, began)
	}
	revision, err := s.SetDraining(within(t), hosts[1], true)
	must(t, err)
	if again := at(t, s, revision).AbsentSince(hosts[1]); !again.Equal(since) {
		t.Errorf("once its record has changed it is away since %v, before since %v", again, since)
	}
	stop, _ = keeping(t, other, hosts[1])
	back := until(t, s, "it is back", func(s *state.Snapshot) bool { return s.Present(hosts[1]) })
	if !back.AbsentSince(hosts[1]).IsZero() {
		t.Errorf("it is back, and away since %v", back.AbsentSince(hosts[1]))
	}
	_ = stop() // it ends as the first time
}

// TestALeaseIsMadeAgain after it expired, be it that the store forgot or the host was
// cut off.
func TestALeaseIsMadeAgain(t *testing.T) {
	t.Parallel()
	e, s, hosts := fleet(t, 2)
	keeping(t, open(t, e), hosts[1])
	for range 3 {
		revision := until(t, s, "its lease lives", func(s *state.Snapshot) bool { return s.Present(hosts[1]) }).Revision
		key, err := e.Client().Get(within(t), "/sixpn/v1/hosts/"+hex8(hosts[1])+"/alive")
		must(t, err)
		_, err = e.Client().Revoke(within(t), clientv3.LeaseID(key.Kvs[0].Lease))
		must(t, err)
		compactAway(t, e.Client())
		until(t, s, "it lives again", func(s *state.Snapshot) bool { return s.Revision > revision && s.Present(hosts[1]) })
	}
}

// TestHostsLostTogetherStay until they are back or removed.
func TestHostsLostTogetherStay(t *testing.T) {
	t.Parallel()
	e, s, hosts := fleet(t, 6)
	var leases []heldKey
	for _, h := range hosts {
		leases = append(leases, keepAlive(t, e.Client(), h))
	}
	until(t, s, "all are there", func(s *state.Snapshot) bool { return len(s.Absent) == 0 && len(s.Hosts) == 6 })
	leases[1].revoke(t)
	alone := until(t, s, "one goes", func(s *state.Snapshot) bool { return !s.Present(hosts[1]) })
	if alone.Alarm() != "" {
		t.Errorf("one host of six raised the alarm %q", alone.Alarm())
	}
	leases[2].revoke(t)
	held := until(t, s, "a second one goes", func(s *state.Snapshot) bool { return s.Alarm() != "" })
	if len(held.Absent) != 0 || !strings.Contains(held.Alarm(), "host-2, host-3") {
		t.Errorf("absent are %v, the alarm is %q", held.Absent, held.Alarm())
	}
	// Somebody who begins now, and reads it all at once, cannot know that they were there;
	// whoever falls behind a compaction can.
	compactAway(t, e.Client())
	keepAlive(t, e.Client(), hosts[1])
	one := until(t, s, "one returns", func(s *state.Snapshot) bool { return !strings.Contains(s.Alarm(), "host-2") })
	if !one.Present(hosts[2]) || !strings.Contains(one.Alarm(), "host-3") {
		t.Errorf("the other one: absent are %v, the alarm is %q", one.Absent, one.Alarm())
	}
	revision, err := s.RemoveHost(within(t), hosts[2], true)
	must(t, err)
	if after := at(t, s, revision); after.Alarm() != "" || len(after.Absent) != 0 {
		t.Errorf("after the removal the alarm is %q, absent are %v", after.Alarm(), after.Absent)
	}
}

// TestHostsLostDuringACompaction: what a full read does not have is an expiry too.
func TestHostsLostDuringACompaction(t *testing.T) {
	t.Parallel()
	e, _, hosts := fleet(t, 3)
	leases := []heldKey{keepAlive(t, e.Client(), hosts[1]), keepAlive(t, e.Client(), hosts[2])}
	behind := open(t, e)
	behind.SetHost(hosts[0])
	for _, l := range leases {
		l.revoke(t)
	}
	compactAway(t, e.Client())
	revision := behind.Snapshot().Revision
	run(t, behind)
	if s := at(t, behind, revision+1); s.Alarm() == "" || len(s.Absent) != 0 {
		t.Errorf("absent are %v, the alarm is %q", s.Absent, s.Alarm())
	}
}

func TestKeepAliveEnds(t *testing.T) {
	t.Parallel()
	e, s, hosts := fleet(t, 3)
	removed, copied := open(t, e), open(t, e)
	run(t, removed)
	run(t, copied)
	_, ended := keeping(t, removed, hosts[1])
	until(t, s, "its lease lives", func(s *state.Snapshot) bool { return s.Present(hosts[1]) })
	_, err := s.RemoveHost(within(t), hosts[1], false)
	must(t, err)
	refused(t, <-ended, state.NotFound, "host")

	// Two with the state directory of one: whoever says so later goes on.
	_, ended = keeping(t, copied, hosts[2])
	until(t, s, "its lease lives", func(s *state.Snapshot) bool { return s.Present(hosts[2]) })
	stop, _ := keeping(t, open(t, e), hosts[2])
	refused(t, <-ended, state.Conflict, "host")
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("the other one ended with %v", err)
	}
	err = s.KeepAlive(within(t), hosts[0], state.PresenceConfig{TTL: time.Second, Interval: time.Second})
	refused(t, err, state.Invalid, "interval")
}

// TestACopyOfAHostIsRefused while the host is at work elsewhere.
func TestACopyOfAHostIsRefused(t *testing.T) {
	t.Parallel()
	e, _, _ := fleet(t, 1)
	first, again := open(t, e), open(t, e)
	host, _, err := first.JoinHost(within(t), newHost(2))
	must(t, err)
	same := newHost(2)
	same.Known = host.ID
	moved := same
	moved.Endpoint = "198.51.100.7:51821"
	stop, _ := keeping(t, first, host.ID)
	for name, row := range map[string]struct {
		store   *state.Store
		host    state.NewHost
		refused bool
	}{
		"its agent, begun again": {again, same, false},
		"elsewhere":              {again, moved, true},
		"elsewhere, by its name": {again, state.NewHost{Name: moved.Name, Region: "fra", Token: moved.Token, Endpoint: moved.Endpoint}, true},
		"it has moved":           {first, moved, false},
	} {
		t.Run(name, func(t *testing.T) {
			waitAlive(t, e.Client(), host.ID)
			_, _, err := row.store.JoinHost(within(t), row.host)
			if row.refused {
				refused(t, err, state.Conflict, "endpoint")
				if !state.AtWorkElsewhere(err) {
					t.Errorf("it is not said that the host is at work elsewhere: %v", err)
				}
			} else {
				must(t, err)
			}
			_, _, err = first.JoinHost(within(t), same) // as before
			must(t, err)
		})
	}
	_ = stop()
}

// waitAlive returns once a host's key is there.
func waitAlive(t *testing.T, client *clientv3.Client, h sixpn.Host) {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	key := "/sixpn/v1/hosts/" + hex8(h) + "/alive"
	now, err := client.Get(ctx, key)
	must(t, err)
	if len(now.Kvs) == 0 {
		<-client.Watch(ctx, key, clientv3.WithRev(now.Header.Revision+1))
	}
}
