package state_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// onEachEtcd tries the embedded store, and the oldest etcd that operators have.
func onEachEtcd(t *testing.T, try func(t *testing.T, client *clientv3.Client)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		try(t, startClosing(t, directory(t)).Client())
	})
	t.Run("the operator's", func(t *testing.T) {
		t.Parallel()
		dir := directory(t)
		p := newEtcd(t)
		p.start(filepath.Join(dir, "etcd"), "operator")
		client := p.connect()
		retrying(t, func(ctx context.Context) error { _, err := state.Open(ctx, client, logTo(t)); return err })
		try(t, client)
	})
}

func openAt(t *testing.T, client *clientv3.Client) *state.Store {
	t.Helper()
	s, err := state.Open(within(t), client, logTo(t))
	must(t, err)
	return s
}

// TestForeignChangesAreNotHeard: a host that has something in one of many networks is
// sent nothing of the others, and one that watches everything is.
func TestForeignChangesAreNotHeard(t *testing.T) {
	t.Parallel()
	onEachEtcd(t, func(t *testing.T, client *clientv3.Client) {
		writer := openAt(t, client)
		run(t, writer)
		w := populate(t, writer)
		here, _, err := w.RegisterHost(within(t), "here", "fra", 0)
		must(t, err)
		own, _, err := w.CreateMachine(within(t), state.NewMachine{App: "web", Host: here.ID, Config: config()})
		must(t, err)
		var foreign []state.Machine
		for i := range 20 {
			org := fmt.Sprint("org-", i)
			_, _, err := w.CreateOrg(within(t), org, "")
			must(t, err)
			_, _, err = w.CreateApp(within(t), "app-"+org, org, "")
			must(t, err)
			m, _, err := w.CreateMachine(within(t), state.NewMachine{App: "app-" + org, Host: w.host.ID, Config: config()})
			must(t, err)
			foreign = append(foreign, m)
		}
		open := func(partial bool) (*state.Store, *breakable) {
			b := newBreakable(t, client.Endpoints()[0])
			s := openWith(t, state.StoreConfig{Client: b.Client, Log: logTo(t), Host: here.ID, Partial: partial})
			t.Cleanup(runUntil(t, s))
			return s, b
		}
		partial, told := open(true)
		whole, toldAll := open(false)
		change := func(id string) int64 {
			_, revision, err := w.UpdateMachine(within(t), id, func(m *state.Machine) error { m.ExitCode = new(orZero(m.ExitCode) + 1); return nil })
			must(t, err)
			return revision
		}
		known := func(revision int64) {
			_, err := partial.Reach(within(t), revision)
			must(t, err)
			at(t, whole, revision)
		}
		known(change(own.ID))
		told.heard()
		toldAll.heard()
		before := partial.Snapshot()
		var last int64
		for _, m := range foreign {
			last = change(m.ID)
		}
		known(last)
		if s := partial.Snapshot(); s != before {
			t.Errorf("foreign changes made the snapshot of revision %d, after that of %d", s.Revision, before.Revision)
		}
		if heard := told.heard(); len(heard) != 0 {
			t.Errorf("it was told of %v", heard)
		}
		if heard := toldAll.heard(); len(heard) < len(foreign) {
			t.Errorf("who watches everything was told of %d changes, want at least %d", len(heard), len(foreign))
		}
		known(change(own.ID))
		if heard := told.heard(); !slices.Equal(heard, []string{"/sixpn/v1/networks/00000001/machines/" + own.ID}) {
			t.Errorf("of its own change it was told %v", heard)
		}
	})
}

// TestMoveThatFitsBarely: an operator's etcd takes 128 writes at once. An app whose move is
// that many by itself moves as it did before there were keys below changed/.
func TestMoveThatFitsBarely(t *testing.T) {
	t.Parallel()
	const most = 41 // three writes each, and five for the app
	p := newEtcd(t)
	p.start(filepath.Join(directory(t), "etcd"), "operator")
	client := p.connect()
	retrying(t, func(ctx context.Context) error { _, err := state.Open(ctx, client, logTo(t)); return err })
	writer := openAt(t, client)
	run(t, writer)
	w := populate(t, writer)
	_, _, err := w.CreateOrg(within(t), "other", "")
	must(t, err)
	for range most {
		w.machine(t, "")
	}
	partial := openWith(t, state.StoreConfig{Client: client, Log: logTo(t), Host: w.host.ID, Partial: true})
	t.Cleanup(runUntil(t, partial))
	app, revision, err := w.MoveApp(within(t), "web", "other", "")
	must(t, err)
	for ctx := within(t); ; {
		s := partial.Snapshot()
		there := 0
		for _, m := range s.HostMachines(w.host.ID) {
			if m.Network == app.Network {
				there++
			}
		}
		if there == most {
			break
		}
		if all := len(s.HostMachines(w.host.ID)); all != most || there != 0 {
			t.Fatalf("the host knows %d Machines, %d of them moved, expected %d, and all or none", all, there, most)
		}
		_, err := partial.Next(ctx, s)
		must(t, err)
	}
	w.machine(t, "") // there is room for one more
	at(t, writer, revision)
	_, _, err = w.MoveApp(within(t), "web", "acme", "")
	refused(t, err, state.Exhausted, "")
}
