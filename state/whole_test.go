package state_test

import (
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// partialWorld is a fleet seen from a host that has none of its Machines.
func partialWorld(t *testing.T) (world, *watchedKV, *state.Store) {
	t.Helper()
	e := startClosing(t, directory(t))
	kv := watchKV(e.Client())
	writer := open(t, e)
	run(t, writer)
	w := populate(t, writer)
	w.machine(t, "web-1")
	here, _, err := w.RegisterHost(within(t), "here", "fra", 0)
	must(t, err)
	s, err := state.OpenStore(within(t), state.StoreConfig{
		Client: e.Client(), Log: logTo(t), Host: here.ID, Partial: true, Patience: time.Second, ProbeInterval: 20 * time.Millisecond,
	})
	must(t, err)
	run(t, s)
	return w, kv, s
}

func TestWholeIsReadWhenSomebodyAsks(t *testing.T) {
	t.Parallel()
	w, kv, local := partialWorld(t)
	if s := local.Snapshot(); len(s.Machines) != 0 || len(s.Orgs) != 0 || len(s.Hosts) != 2 {
		t.Fatalf("the host has %+v: it is not partial", s)
	}
	before := kv.fullReads.Load()
	whole := state.NewWhole(local, time.Hour)
	defer whole.Close()
	if kv.fullReads.Load() != before {
		t.Error("it was read before anybody asked")
	}
	if s := whole.Snapshot(); len(s.Machines) != 1 || len(s.Orgs) != 1 {
		t.Errorf("the whole is %+v", s)
	}
	m, revision, err := w.CreateMachine(within(t), w.newMachine("web-2"))
	must(t, err)
	s, err := whole.Wait(within(t), revision-1)
	must(t, err)
	if _, ok := s.Machines[m.ID]; !ok {
		t.Error("it does not follow the store")
	}
	if n := kv.fullReads.Load() - before; n != 1 {
		t.Errorf("it was read %d times, want once", n)
	}
}

// TestWholeIsNotAhead: whoever waited for a change finds it in the host's own snapshot, be
// it of a Machine of another host or of one of its own.
func TestWholeIsNotAhead(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	writer := open(t, e)
	run(t, writer)
	w := populate(t, writer)
	here, _, err := w.RegisterHost(within(t), "here", "fra", 0)
	must(t, err)
	local := openWith(t, state.StoreConfig{Client: e.Client(), Log: logTo(t), Host: here.ID, Partial: true, Patience: deadline})
	run(t, local)
	whole := state.NewWhole(local, time.Hour)
	defer whole.Close()
	for i := range 100 {
		n := w.newMachine("")
		if i%2 == 1 {
			n.Host = local.Host()
		}
		_, revision, err := w.CreateMachine(within(t), n)
		must(t, err)
		after := revision - 1
		if i%4 >= 2 {
			after = 0 // whatever it has by now
		}
		s, err := whole.Wait(within(t), after)
		must(t, err)
		if reached := local.Reached(); reached < s.Revision {
			t.Fatalf("the whole has revision %d, and the host %d", s.Revision, reached)
		}
	}
}

func TestWholeIsLetGoOf(t *testing.T) {
	t.Parallel()
	w, kv, local := partialWorld(t)
	before := kv.fullReads.Load()
	whole := state.NewWhole(local, time.Millisecond)
	defer whole.Close()
	eventually(t, "it is let go of and read anew", func() bool { whole.Snapshot(); return kv.fullReads.Load() > before+3 })
	// As long as somebody waits it stays.
	got := make(chan *state.Snapshot, 1)
	after := w.Snapshot().Revision
	go func() {
		s, _ := whole.Wait(within(t), after)
		got <- s
	}()
	_, revision, err := w.CreateMachine(within(t), w.newMachine("web-2"))
	must(t, err)
	if s := <-got; s == nil || s.Revision < revision || len(s.Machines) != 2 {
		t.Errorf("who waited got %+v", s)
	}
}

// TestWholeWithoutTheStore is what the host has, at once.
func TestWholeWithoutTheStore(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	config := o.etcd.keepingFile(o.file)
	config.Partial, config.Host = true, o.machine.Host
	local := openWith(t, config)
	defer runUntil(t, local)()
	whole := state.NewWhole(local, time.Hour)
	defer whole.Close()
	if s := whole.Snapshot(); s != local.Snapshot() || len(s.Machines) != 1 {
		t.Errorf("without the store the whole is %+v", s)
	}
	o.etcd.start(o.dir, "known")
	eventually(t, "it is whole once the store is back", func() bool { s := whole.Snapshot(); return len(s.Orgs) == 1 && len(s.Machines) == 1 })
}

// TestWholeKeepsWhoIsHeld: that they were there is known to the partial Store alone.
func TestWholeKeepsWhoIsHeld(t *testing.T) {
	t.Parallel()
	e, _, hosts := fleet(t, 3)
	leases := []heldKey{keepAlive(t, e.Client(), hosts[1]), keepAlive(t, e.Client(), hosts[2])}
	local, err := state.OpenStore(within(t), state.StoreConfig{Client: e.Client(), Log: logTo(t), Host: hosts[0], Partial: true})
	must(t, err)
	run(t, local)
	for _, l := range leases {
		l.revoke(t)
	}
	until(t, local, "they are held", func(s *state.Snapshot) bool { return s.Alarm() != "" })
	whole := state.NewWhole(local, time.Hour)
	defer whole.Close()
	if s := whole.Snapshot(); s.Alarm() == "" || len(s.Absent) != 0 {
		t.Errorf("absent are %v, the alarm is %q", s.Absent, s.Alarm())
	}
}
