package state_test

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// judged is a store that waits before it judges, and all that it ever said.
func judged(t *testing.T, hosts int, grace time.Duration) (e *state.Embedded, s *state.Store, ids []sixpn.Host, seen func() []*state.Snapshot) {
	t.Helper()
	e, _, ids = fleet(t, hosts)
	s, err := state.OpenStore(within(t), state.StoreConfig{Client: e.Client(), Log: logTo(t), Host: ids[0], Window: time.Hour, Grace: grace})
	must(t, err)
	run(t, s)
	for _, h := range ids {
		keepAlive(t, e.Client(), h)
	}
	all := following(t, s, func(s *state.Snapshot) bool { return len(s.Absent) == 0 && len(s.Hosts) == hosts })
	return e, s, ids, func() []*state.Snapshot { return <-all }
}

// following waits for a snapshot, and collects those that come after it until another
// thing is true of the last one.
func following(t *testing.T, s *state.Store, begin func(*state.Snapshot) bool) <-chan []*state.Snapshot {
	t.Helper()
	snapshot, ctx := s.Snapshot(), within(t)
	for !begin(snapshot) {
		var err error
		if snapshot, err = s.Next(ctx, snapshot); err != nil {
			t.Fatalf("in vain: absent are %v", snapshot.Absent)
		}
	}
	all := make(chan []*state.Snapshot, 1)
	go func() {
		var seen []*state.Snapshot
		for len(seen) == 0 || seen[len(seen)-1].Alarm() == "" && len(seen[len(seen)-1].Absent) == 0 {
			var err error
			if snapshot, err = s.Next(ctx, snapshot); err != nil {
				break
			}
			seen = append(seen, snapshot)
		}
		all <- seen
	}()
	return all
}

// TestTheFirstOfManyStays: of hosts that lose the store at one moment each lease ends at
// another one, and nobody is left out before it is known how many they are.
func TestTheFirstOfManyStays(t *testing.T) {
	t.Parallel()
	const hosts, lost = 60, 20
	e, _, ids, seen := judged(t, hosts, time.Hour) // how fast this machine is must not matter
	for i, h := range ids[hosts-lost:] {
		endLease(t, e.Client(), h)
		if i == lost/2 { // other things happen meanwhile
			_, err := e.Client().Put(within(t), "/sixpn/v1/orgs/acme", `{"slug":"acme"}`)
			must(t, err)
		}
	}
	all := seen()
	for _, s := range all {
		if len(s.Absent) != 0 {
			t.Fatalf("absent are %v, the alarm is %q", s.Absent, s.Alarm())
		}
	}
	if last := all[len(all)-1]; !strings.Contains(last.Alarm(), "20 of 60 hosts") {
		t.Errorf("the alarm is %q", last.Alarm())
	}
}

// TestOneIsLeftOutAfterTheGrace, without anything new from the store.
func TestOneIsLeftOutAfterTheGrace(t *testing.T) {
	t.Parallel()
	grace := 300 * time.Millisecond
	e, s, ids, seen := judged(t, 3, grace)
	ended := time.Now()
	revision := endLease(t, e.Client(), ids[2])
	all := seen()
	last := all[len(all)-1]
	if took := time.Since(ended); took < grace || !last.Absent[ids[2]] || len(last.Absent) != 1 || last.Alarm() != "" {
		t.Errorf("after %v absent are %v, the alarm is %q", took, last.Absent, last.Alarm())
	}
	if last.Revision != revision {
		t.Errorf("revision %d, want %d: something new came", last.Revision, revision)
	}
	if one, err := s.Next(within(t), all[0]); err != nil || !one.Absent[ids[2]] {
		t.Errorf("whoever asks later has absent %v, error %v", one.Absent, err)
	}
}

// TestWhoIsBackBeforeTheGraceIsOver was never away.
func TestWhoIsBackBeforeTheGraceIsOver(t *testing.T) {
	t.Parallel()
	e, s, ids, _ := judged(t, 3, time.Hour)
	endLease(t, e.Client(), ids[1])
	keepAlive(t, e.Client(), ids[1])
	now, err := s.Reach(within(t), endLease(t, e.Client(), ids[2]))
	must(t, err)
	if len(now.Absent) != 0 || now.Alarm() != "" {
		t.Errorf("absent are %v, the alarm is %q", now.Absent, now.Alarm())
	}
}

// endLease has the store do what it does when a host's lease expires.
func endLease(t *testing.T, client *clientv3.Client, h sixpn.Host) (revision int64) {
	t.Helper()
	key, err := client.Get(within(t), "/sixpn/v1/hosts/"+hex8(h)+"/alive")
	must(t, err)
	ended, err := client.Revoke(within(t), clientv3.LeaseID(key.Kvs[0].Lease))
	must(t, err)
	return ended.Header.Revision
}
