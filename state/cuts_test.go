package state_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// orders is random writes by one process.
type orders struct {
	*state.Store
	random *rand.Rand
	hosts  []sixpn.Host
	spare  []sixpn.Host // that come and go
	did    map[string]int
	last   int64
}

var (
	orderOrgs = []string{"a", "b", "c", "d", "e", "f"}
	orderApps = []string{"s", "t", "u", "v", "w", "x", "y", "z"}
)

func (o *orders) pick(of []string) string { return of[o.random.IntN(len(of))] }

// step writes something, unless it is refused.
func (o *orders) step(ctx context.Context, t *testing.T) {
	s := o.Snapshot()
	var what string
	var revision int64
	var err error
	machine := func() string { return o.pick(append(slices.Sorted(maps.Keys(s.Machines)), "0123456789abcd")) }
	switch o.random.IntN(14) {
	case 0, 1:
		what = "an app"
		_, revision, err = o.CreateApp(ctx, o.pick(orderApps), o.pick(orderOrgs), "")
	case 2, 3, 4:
		what = "a Machine"
		_, revision, err = o.CreateMachine(ctx, state.NewMachine{App: o.pick(orderApps), Host: o.hosts[o.random.IntN(len(o.hosts))], Config: config()})
	case 5, 6:
		what = "no Machine"
		revision, err = o.DestroyMachine(ctx, machine())
	case 7:
		what = "an address"
		_, revision, err = o.AllocateVIP(ctx, o.pick(orderApps), o.pick(append(orderOrgs, "")), "")
	case 8:
		what = "no address"
		vips := s.AppVIPs(o.pick(orderApps))
		if len(vips) == 0 {
			return
		}
		revision, err = o.ReleaseVIP(ctx, vips[0].App, vips[0].Addr())
	case 9, 10:
		what = "a move"
		_, revision, err = o.MoveApp(ctx, o.pick(orderApps), o.pick(orderOrgs), "")
	case 11:
		what = "no app"
		revision, err = o.DestroyApp(ctx, o.pick(orderApps))
	case 12:
		what = "another host's"
		id := machine()
		from := s.Machines[id].Host
		if _, _, err = o.MigrateMachine(ctx, id, "", o.hosts[o.random.IntN(len(o.hosts))]); err == nil {
			_, revision, err = o.HandOver(ctx, from, id)
		}
	default:
		what = "a host"
		if len(o.spare) > 3 {
			revision, err = o.RemoveHost(ctx, o.spare[0], false)
			o.spare = o.spare[1:]
			break
		}
		var h state.Host
		h, revision, err = o.RegisterHost(ctx, fmt.Sprint("spare-", o.did[what]), "fra", 0)
		o.spare = append(o.spare, h.ID)
	}
	if err == nil {
		o.did[what]++
		o.last = max(o.last, revision)
	} else if state.KindOf(err) == state.Unavailable {
		t.Error(err)
	}
}

// TestPartialSnapshotsAreOfOneRevision under random writes of two processes, while
// connections break, Stores stop and go on, and the store forgets its past: whatever a
// partial Store says is what a read of everything at that revision says, though each of
// its networks is another watch.
func TestPartialSnapshotsAreOfOneRevision(t *testing.T) {
	t.Parallel()
	onEachEtcd(t, func(t *testing.T, client *clientv3.Client) { snapshotsAreOfOneRevision(t, client, client) })
}

// TestWritersOneReleaseApart is the same with writers that do not know the keys below
// changed/. What they write in two networks at once may come late in one of them, but no
// Machine of a host is ever missing because of that, and all of it comes.
func TestWritersOneReleaseApart(t *testing.T) {
	t.Parallel()
	client := startClosing(t, directory(t)).Client()
	before, err := clientv3.New(clientv3.Config{Endpoints: client.Endpoints(), Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { must(t, before.Close()) })
	before.KV = releaseBefore{before.KV}
	snapshotsAreOfOneRevision(t, client, before)
}

// releaseBefore leaves out what the release before does not write.
type releaseBefore struct{ clientv3.KV }

type transactionBefore struct{ clientv3.Txn }

func (r releaseBefore) Txn(ctx context.Context) clientv3.Txn {
	return transactionBefore{r.KV.Txn(ctx)}
}

func (t transactionBefore) If(guards ...clientv3.Cmp) clientv3.Txn {
	return transactionBefore{t.Txn.If(guards...)}
}

func (t transactionBefore) Then(ops ...clientv3.Op) clientv3.Txn {
	return transactionBefore{t.Txn.Then(slices.DeleteFunc(slices.Clone(ops), func(op clientv3.Op) bool {
		return strings.HasPrefix(string(op.KeyBytes()), "/sixpn/v1/changed/")
	})...)}
}

// snapshotsAreOfOneRevision is that test of one etcd, and of writers with that client.
func snapshotsAreOfOneRevision(t *testing.T, client, writers *clientv3.Client) {
	const steps = 300
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	history := client.Watch(ctx, "/sixpn/v1/", clientv3.WithPrefix(), clientv3.WithRev(1))
	writer := openAt(t, writers)
	run(t, writer)
	o := &orders{Store: writer, random: rand.New(rand.NewPCG(3, 4)), did: map[string]int{}}
	for i := range 3 {
		h, _, err := writer.RegisterHost(ctx, fmt.Sprint("host-", i+1), "fra", 0)
		must(t, err)
		keepAlive(t, client, h.ID)
		o.hosts = append(o.hosts, h.ID)
	}
	for _, org := range orderOrgs {
		_, _, err := writer.CreateOrg(ctx, org, "")
		must(t, err)
	}
	following, endFollowing := context.WithCancel(ctx)
	defer endFollowing()
	var followers []*follower
	for _, h := range o.hosts {
		followers = append(followers, follow(following, t, client.Endpoints()[0], h))
	}

	// Another process changes records as hosts do.
	changing, endChanging := context.WithCancel(ctx)
	defer endChanging()
	changed := make(chan int)
	other := openAt(t, writers)
	go func() {
		n := 0
		for random := rand.New(rand.NewPCG(5, 6)); changing.Err() == nil; {
			ids := slices.Sorted(maps.Keys(writer.Snapshot().Machines))
			if len(ids) == 0 {
				continue
			}
			if _, _, err := other.UpdateMachine(ctx, ids[random.IntN(len(ids))], func(m *state.Machine) error {
				m.State, m.ExitCode = state.Stopped, new(orZero(m.ExitCode)+1)
				return nil
			}); err == nil {
				n++
			}
		}
		changed <- n
	}()

	var cuts, pauses, compactions int
	for step := range steps {
		o.step(ctx, t)
		f := followers[o.random.IntN(len(followers))]
		switch o.random.IntN(12) {
		case 0:
			cuts++
			f.client.cut()
		case 1:
			pauses++
			f.stop()
			for range o.random.IntN(4) {
				o.step(ctx, t)
			}
			if o.random.IntN(2) == 0 {
				compactions++
				compactAway(t, client)
			}
			f.stop = runUntil(t, f.Store)
		}
		if step%10 == 0 {
			at(t, writer, o.last)
		}
	}
	endChanging()
	if n := <-changed; n < steps/10 {
		t.Errorf("%d changes beside: too few", n)
	}
	_, last, err := writer.CreateOrg(ctx, "last", "")
	must(t, err)
	for _, f := range followers {
		_, err := f.Reach(within(t), last)
		must(t, err)
	}
	var events []*clientv3.Event
	for len(events) == 0 || events[len(events)-1].Kv.ModRevision < last {
		response := <-history
		must(t, response.Err())
		events = append(events, response.Events...)
	}
	whole := state.Histories(t, events)
	if writers != client {
		for _, f := range followers {
			f.await(t, concerning(whole[last], f.host))
		}
	}
	endFollowing()
	for _, f := range followers {
		<-f.done
		f.stop()
		moved := 0
		for i, s := range f.seen {
			if i > 0 && s.Revision < f.seen[i-1].Revision {
				t.Errorf("host %v went back from revision %d to %d", f.host, f.seen[i-1].Revision, s.Revision)
			}
			if i > 0 && movedWithin(f.seen[i-1], s) {
				moved++
			}
			if writers == client {
				f.isOfOneRevision(t, s, whole)
			} else if i > 0 {
				f.missesNone(t, f.seen[i-1], s, whole)
			}
		}
		sameConcerns(t, fmt.Sprintf("host %v at last", f.host), f.Snapshot(), concerning(whole[last], f.host))
		if len(f.seen) < steps/10 || moved < 2 {
			t.Errorf("host %v was seen with %d snapshots and %d moves between what it has: too few", f.host, len(f.seen), moved)
		}
		t.Logf("host %v: %d snapshots, %d moves", f.host, len(f.seen), moved)
	}
	t.Logf("did %v, %d cuts, %d pauses, %d compactions, %d revisions", o.did, cuts, pauses, compactions, len(whole))
	for _, what := range []string{"an app", "a Machine", "no Machine", "an address", "no address", "a move", "no app", "another host's", "a host"} {
		if o.did[what] < 3 {
			t.Errorf("%q was done %d times only", what, o.did[what])
		}
	}
	if cuts < 10 || pauses < 10 || compactions < 3 {
		t.Errorf("%d cuts, %d pauses, %d compactions: too few", cuts, pauses, compactions)
	}
}

// movedWithin is whether an app went from one network to another, both of which are whole
// before and after.
func movedWithin(before, after *state.Snapshot) bool {
	for name, a := range after.Apps {
		if b, ok := before.Apps[name]; ok && a.Network != b.Network {
			return true
		}
	}
	return false
}

func revisionBefore(of map[int64]*state.Snapshot, revision int64) int64 {
	last := int64(0)
	for r := range of {
		if r <= revision {
			last = max(last, r)
		}
	}
	return last
}
