package state_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

func TestWatchDelivers(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	writer, reader := open(t, e), open(t, e)
	run(t, reader)
	w := populate(t, writer)
	m := w.machine(t, "web-1")
	vip, revision, err := w.AllocateVIP(within(t), "web", "", "")
	must(t, err)

	s := at(t, reader, revision)
	if s.Machines[m.ID].Addr() != m.Addr() || len(s.AppMachines("web")) != 1 || len(s.HostMachines(w.host.ID)) != 1 {
		t.Errorf("the Machine did not arrive: %+v", s)
	}
	if got := s.AppVIPs("web"); len(got) != 1 || got[0].Addr() != vip.Addr() {
		t.Errorf("the app has addresses %+v, want %v", got, vip.Addr())
	}
	if got := s.NetworkApps(w.web.Network); len(got) != 1 || got[0].Name != "web" {
		t.Errorf("the network has apps %+v, want web", got)
	}
	if n, ok := s.NetworkNamed("acme", ""); !ok || n.ID != w.web.Network {
		t.Errorf("the default network is %+v, want %v", n, w.web.Network)
	}

	_, err = w.ReleaseVIP(within(t), "web", vip.Addr())
	must(t, err)
	revision, err = w.DestroyMachine(within(t), m.ID)
	must(t, err)
	if after := at(t, reader, revision); len(after.Machines) != 0 || len(after.VIPs) != 0 ||
		len(after.AppMachines("web")) != 0 || len(after.HostMachines(w.host.ID)) != 0 || len(after.AppVIPs("web")) != 0 {
		t.Errorf("what was deleted is still there: %+v", after)
	}
	if len(s.Machines) != 1 || len(s.VIPs) != 1 || len(s.AppMachines("web")) != 1 {
		t.Error("the older snapshot changed under its reader")
	}
}

// TestSnapshotsNeverShowHalfATransaction: an org comes with its network.
func TestSnapshotsNeverShowHalfATransaction(t *testing.T) {
	t.Parallel()
	s := running(t)
	ctx, cancel := context.WithCancel(within(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for revision := s.Snapshot().Revision; ; {
			snapshot, err := s.Wait(ctx, revision)
			if err != nil {
				return
			}
			revision = snapshot.Revision
			if len(snapshot.Orgs) != len(snapshot.Networks) {
				t.Errorf("revision %d has %d orgs and %d networks", revision, len(snapshot.Orgs), len(snapshot.Networks))
			}
		}
	}()
	var last int64
	for _, letter := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		_, revision, err := s.CreateOrg(ctx, letter, "")
		must(t, err)
		last = revision
	}
	at(t, s, last)
	cancel()
	<-done
}

func TestWaitWakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machine(t, "web-1")
	before, _, err := w.UpdateMachine(within(t), m.ID, func(*state.Machine) error { return nil })
	must(t, err)
	at(t, w.Store, 0)
	revision := w.Snapshot().Revision
	woken := make(chan error, 1)
	go func() {
		for {
			s, err := w.Wait(within(t), revision)
			if err != nil || s.Machines[before.ID].State == state.Started {
				woken <- err
				return
			}
			revision = s.Revision
		}
	}()
	_, _, err = w.UpdateMachine(within(t), m.ID, func(m *state.Machine) error {
		m.State = state.Started
		return nil
	})
	must(t, err)
	must(t, <-woken)
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := running(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Wait(ctx, s.Snapshot().Revision); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait returned %v, want the context's error", err)
	}
}

// TestCompactionIsRecovered lets a store fall behind the oldest revision there is.
func TestCompactionIsRecovered(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	writer := open(t, e)
	w := populate(t, writer)
	gone := w.machine(t, "web-1")
	behind := open(t, e)
	_, err := w.DestroyMachine(within(t), gone.ID)
	must(t, err)
	_, revision, err := w.CreateMachine(within(t), w.newMachine("web-2"))
	must(t, err)
	compactAway(t, e.Client())

	if _, ok := behind.Snapshot().Machines[gone.ID]; !ok {
		t.Fatal("the store was not behind: nothing is tested")
	}
	run(t, behind)
	s := at(t, behind, revision)
	if _, ok := s.Machines[gone.ID]; ok || len(s.AppMachines("web")) != 1 {
		t.Errorf("after the compaction the Machines are %+v, want web-2 alone", s.Machines)
	}
	// And it watches again.
	_, revision, err = w.CreateApp(within(t), "shop", "acme", "")
	must(t, err)
	if _, ok := at(t, behind, revision).Apps["shop"]; !ok {
		t.Error("nothing is delivered after the recovery")
	}
}

// watchedKV counts full reads and can fail each after its first page.
type watchedKV struct {
	clientv3.KV
	fullReads atomic.Int64
	failing   atomic.Bool
	failed    chan struct{} // one for each failure
}

func (k *watchedKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if key == "/sixpn/v1/" {
		k.fullReads.Add(1)
	} else if k.failing.Load() && key != "/sixpn/v1/fleet" {
		select {
		case k.failed <- struct{}{}:
		case <-ctx.Done():
		}
		return nil, errors.New("the network is down")
	}
	return k.KV.Get(ctx, key, opts...)
}

func watchKV(client *clientv3.Client) *watchedKV {
	kv := &watchedKV{KV: client.KV, failed: make(chan struct{}, 100)}
	client.KV = kv
	return kv
}

// compactAway makes everything up to a revision unknown to a watch.
func compactAway(t *testing.T, client *clientv3.Client) {
	t.Helper()
	last, err := client.Put(within(t), "/sixpn/v1/counters/test", "1")
	must(t, err)
	_, err = client.Compact(within(t), last.Header.Revision, clientv3.WithCompactPhysical())
	must(t, err)
}

// many are enough records for two pages of a full read.
func many(t *testing.T, client *clientv3.Client) {
	t.Helper()
	for i := range 12 {
		var puts []clientv3.Op
		for j := range 100 {
			slug := strings.Join([]string{"org", string(rune('a' + i)), string(rune('a' + j/10)), string(rune('a' + j%10))}, "-")
			puts = append(puts, clientv3.OpPut("/sixpn/v1/orgs/"+slug, `{"slug":"`+slug+`","name":"x","created_at":"2026-01-01T00:00:00Z"}`))
		}
		_, err := client.Txn(within(t)).Then(puts...).Commit()
		must(t, err)
	}
}

// TestPartialReadIsNoState: with the first page read and the second failing, there
// is either no snapshot or the older one, never a part.
func TestPartialReadIsNoState(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	many(t, e.Client())
	behind := open(t, e)
	before := behind.Snapshot()
	if len(before.Orgs) != 1200 {
		t.Fatalf("%d orgs were read, want 1200", len(before.Orgs))
	}
	kv := watchKV(e.Client())
	kv.failing.Store(true)

	opened := make(chan error, 1)
	go func() {
		_, err := state.Open(within(t), e.Client(), logTo(t))
		opened <- err
	}()
	<-kv.failed
	if err := <-opened; state.KindOf(err) != state.Unavailable {
		t.Errorf("Open returned %v, want an error of kind %v", err, state.Unavailable)
	}

	late, err := e.Client().Put(within(t), "/sixpn/v1/orgs/late", `{"slug":"late","name":"x","created_at":"2026-01-01T00:00:00Z"}`)
	must(t, err)
	compactAway(t, e.Client())
	run(t, behind)
	for range 3 {
		<-kv.failed
		if got := behind.Snapshot(); got != before {
			t.Fatalf("a failed read replaced the snapshot by one with %d orgs", len(got.Orgs))
		}
	}
	kv.failing.Store(false)
	if got := at(t, behind, late.Header.Revision); len(got.Orgs) != 1201 {
		t.Errorf("after the recovery there are %d orgs, want 1201", len(got.Orgs))
	}
}

// TestUnreadableRecordKeepsItsLastVersion, whether it arrives by an event or by a
// full read.
func TestUnreadableRecordKeepsItsLastVersion(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	w := populate(t, open(t, e))
	m := w.machine(t, "web-1")
	watching, reading := open(t, e), open(t, e)
	const key = "/sixpn/v1/networks/00000001/machines/"
	damaged, err := e.Client().Put(within(t), key+m.ID, `{"id": 12}`)
	must(t, err)
	run(t, watching)
	snapshots := map[string]*state.Snapshot{"by event": at(t, watching, damaged.Header.Revision)}
	kv := watchKV(e.Client())
	compactAway(t, e.Client())
	run(t, reading)
	snapshots["by full read"] = at(t, reading, damaged.Header.Revision)
	if kv.fullReads.Load() == 0 {
		t.Fatal("there was no full read: half of this is not tested")
	}
	for how, s := range snapshots {
		if s.Machines[m.ID].Name != "web-1" || len(s.AppMachines("web")) != 1 || len(s.HostMachines(w.host.ID)) != 1 {
			t.Errorf("%s: the Machine is %+v, want its last readable version", how, s.Machines[m.ID])
		}
		if s.Unreadable[key+m.ID] == "" {
			t.Errorf("%s: nothing says that the record is unreadable: %v", how, s.Unreadable)
		}
	}
	gone, err := e.Client().Delete(within(t), key+m.ID)
	must(t, err)
	for _, s := range []*state.Store{watching, reading} {
		if after := at(t, s, gone.Header.Revision); len(after.Machines) != 0 || len(after.Unreadable) != 0 {
			t.Errorf("after its deletion the record is still there: %+v", after)
		}
	}
}
