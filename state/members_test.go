package state_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// untilNot tries until there is no error of this kind.
func untilNot(t *testing.T, kind state.ErrorKind, do func() error) {
	t.Helper()
	ctx := within(t)
	for {
		err := do()
		if state.KindOf(err) != kind {
			must(t, err)
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %v: %v", deadline, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// join starts another member of a store, and gives it its vote.
func join(t *testing.T, client *clientv3.Client, l *state.Listen, dir string) *state.Embedded {
	t.Helper()
	members, err := state.StoreMembers(within(t), client)
	must(t, err)
	var others []netip.AddrPort
	for _, m := range members {
		others = append(others, m.Underlay)
	}
	var id uint64
	// Refused until the members have been connected for five seconds.
	untilNot(t, state.Unavailable, func() (err error) { id, err = state.AddLearner(within(t), client, l.Underlay); return err })
	e, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t), Listen: l, Members: others})
	must(t, err)
	if e.MemberID() != id {
		t.Errorf("member %x, expected %x", e.MemberID(), id)
	}
	untilNot(t, state.Conflict, func() error { return state.PromoteLearner(within(t), client, id) })
	return e
}

// A store of one becomes one of three, loses a member without losing a write, replaces
// it, and goes on after all of them were stopped.
func TestThreeMembers(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var listens []*state.Listen
	var dirs, endpoints []string
	for range 4 {
		l := a.listen(t)
		listens, dirs, endpoints = append(listens, l), append(dirs, directory(t)), append(endpoints, state.StoreURL(l.Underlay))
	}
	servers := []*state.Embedded{startListening(t, dirs[0], listens[0])}
	record(t, servers[0], "members", shown(t, listens[0])) // they show one certificate
	client := remote(t, state.RemoteConfig{Endpoints: endpoints, TLS: a.admitted(t, servers[0], "other")})
	s, err := state.Open(within(t), client, logTo(t))
	must(t, err)
	run(t, s)
	for _, l := range listens {
		l.Known = func() *state.Store { return s }
	}
	w := populate(t, s)
	for i := 1; i < 3; i++ {
		servers = append(servers, join(t, client, listens[i], dirs[i]))
	}
	if got, err := state.StoreEndpoints(within(t), client); err != nil || len(got) != 3 {
		t.Errorf("the store is at %v, error %v, expected three places", got, err)
	}
	w.machine(t, "before")

	gone := servers[0].MemberID()
	must(t, servers[0].Close())
	untilNot(t, state.Unavailable, func() error {
		_, _, err := w.CreateMachine(within(t), w.newMachine("while"))
		if state.KindOf(err) == state.Conflict { // a try before was written, and its answer lost
			return nil
		}
		return err
	})
	untilNot(t, state.Unavailable, func() error { return state.RemoveMember(within(t), client, gone) })
	must(t, state.RemoveMember(within(t), client, gone))
	servers[0] = join(t, client, listens[3], dirs[3])
	w.machine(t, "after")

	for _, e := range servers {
		must(t, e.Close())
	}
	// Whoever comes first waits for a majority, and may be closed meanwhile.
	must(t, startAsync(t, dirs[3], listens[3]).Close())
	for i, dir := range []string{dirs[3], dirs[1], dirs[2]} {
		e, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t), Listen: []*state.Listen{listens[3], listens[1], listens[2]}[i], Async: true})
		must(t, err)
		t.Cleanup(func() { must(t, e.Close()) })
	}
	var again *state.Store
	untilNot(t, state.Unavailable, func() (err error) { again, err = state.Open(within(t), client, logTo(t)); return err })
	for _, name := range []string{"before", "while", "after"} {
		found := false
		for _, m := range again.Snapshot().Machines {
			found = found || m.Name == name
		}
		if !found {
			t.Errorf("Machine %q was acknowledged and is gone", name)
		}
	}

	// The member that was removed is told so, whatever it was when it stopped.
	late := startAsync(t, dirs[0], listens[0])
	if err := late.Wait(within(t)); state.KindOf(err) != state.Unavailable {
		t.Errorf("a member that was removed: %v", err)
	}
	must(t, late.Close())
	must(t, state.RemoveData(dirs[0]))
	if state.HasData(dirs[0]) {
		t.Error("its data is still there")
	}
}

func startAsync(t *testing.T, dir string, l *state.Listen) *state.Embedded {
	t.Helper()
	e, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t), Listen: l, Async: true})
	must(t, err)
	return e
}

// Of those who change the members at the same moment, one does at a time.
func TestChangingMembersTakesTurns(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	inside, results := 0, make(chan error, 4)
	for range cap(results) {
		go func() {
			results <- state.ChangingMembers(within(t), e.Client(), func(context.Context) error {
				inside++
				if inside != 1 {
					t.Errorf("%d change the members at once", inside)
				}
				inside--
				return nil
			})
		}()
	}
	for range cap(results) {
		must(t, <-results)
	}
}

func TestHasMajority(t *testing.T) {
	leader, voter, away, learner := state.MemberStatus{Leader: true}, state.MemberStatus{}, state.MemberStatus{Err: errors.New("away")}, state.MemberStatus{Learner: true}
	for _, row := range []struct {
		name    string
		members []state.MemberStatus
		want    bool
	}{
		{"one", []state.MemberStatus{leader}, true},
		{"one, away", []state.MemberStatus{away}, false},
		{"two of three", []state.MemberStatus{leader, voter, away}, true},
		{"two of three, without a leader", []state.MemberStatus{voter, voter, away}, false},
		{"one of two", []state.MemberStatus{leader, away}, false},
		{"a learner does not count", []state.MemberStatus{leader, away, learner}, false},
		{"nor against it", []state.MemberStatus{leader, {Learner: true, Err: errors.New("away")}}, true},
	} {
		if got := state.HasMajority(row.members); got != row.want {
			t.Errorf("%s: %v, expected %v", row.name, got, row.want)
		}
	}
}
