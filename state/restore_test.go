package state_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// restoring is a fleet of one host whose store is lost, an export that is older than what
// the host has seen, and what the host kept on disk.
type restoring struct {
	export   *state.Exported
	file     string
	host     state.Host
	snapshot *state.Snapshot // before the loss
	client   *clientv3.Client
}

// named finds a Machine by its name.
func named(t *testing.T, s *state.Snapshot, name string) state.Machine {
	t.Helper()
	for _, m := range s.Machines {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("there is no Machine %q among %v", name, s.Machines)
	return state.Machine{}
}

func exportFrom(t *testing.T, client *clientv3.Client) *state.Exported {
	t.Helper()
	var file bytes.Buffer
	_, err := state.Export(within(t), client, &file)
	must(t, err)
	e, err := state.ReadExport(&file)
	must(t, err)
	return e
}

// socketClient is a client of the store in a directory, that may be pointed at another.
func socketClient(t *testing.T, dir string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{socketOf(dir)}})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return client
}

func socketOf(dir string) string { return "unix://" + filepath.Join(dir, "etcd.sock") }

func (r *restoring) config(t *testing.T) state.StoreConfig {
	return state.StoreConfig{
		Client: r.client, Log: logTo(t), Host: r.host.ID, Partial: true, File: r.file,
		SaveInterval: time.Millisecond, Patience: 2 * time.Second, ProbeInterval: 20 * time.Millisecond,
	}
}

// restoreTo makes a store of an export in a new directory, and points the client at it.
func (r *restoring) restoreTo(t *testing.T, e *state.Exported) *state.Embedded {
	t.Helper()
	dir := directory(t)
	must(t, e.Restore(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t)}))
	running := startClosing(t, dir)
	r.client.SetEndpoints(socketOf(dir))
	return running
}

// newRestoring has, of before the export, the Machines "stays" and "goes", which is
// destroyed afterwards; and of afterwards "late", and "elsewhere" in an app of an org of
// its own; then a host that joined.
func newRestoring(t *testing.T) (r *restoring, stopped func() error) {
	t.Helper()
	dir := directory(t)
	e := startClosing(t, dir) // it goes on, with nobody who asks it
	r = &restoring{file: filepath.Join(directory(t), "last.json"), client: socketClient(t, dir)}
	w := populate(t, open(t, e))
	r.host = w.host
	w.machine(t, "stays")
	goes := w.machine(t, "goes")
	r.export = exportFrom(t, e.Client())

	working := openWith(t, r.config(t))
	ended := make(chan error, 1)
	go func() { ended <- working.Run(within(t)) }()
	w.machine(t, "late")
	_, err := w.DestroyMachine(within(t), goes.ID)
	must(t, err)
	_, _, err = w.CreateOrg(within(t), "young", "")
	must(t, err)
	_, _, err = w.CreateApp(within(t), "shop", "young", "")
	must(t, err)
	n := w.newMachine("elsewhere")
	n.App = "shop"
	_, revision, err := w.CreateMachine(within(t), n)
	must(t, err)
	r.snapshot = at(t, working, revision)
	return r, func() error { return <-ended }
}

// TestARestoredStoreIsTakenUp: who is at work when it comes is told to begin again; who
// begins takes it, and brings what came after the export.
func TestARestoredStoreIsTakenUp(t *testing.T) {
	t.Parallel()
	r, ended := newRestoring(t)
	e := r.restoreTo(t, r.export)
	var restored *state.RestoredError
	if err := ended(); !errors.As(err, &restored) || restored.Cluster != e.ClusterID() {
		t.Fatalf("the one at work ended with %v, want that it is cluster %x", err, e.ClusterID())
	}
	s := openWith(t, r.config(t))
	if alarm := s.Snapshot().Alarm(); alarm != "" {
		t.Fatalf("it is refused: %s", alarm)
	}
	for _, name := range []string{"stays", "late", "elsewhere"} {
		was, is := named(t, r.snapshot, name), named(t, s.Snapshot(), name)
		if was.ID != is.ID || was.Addr() != is.Addr() || was.App != is.App || was.InstanceID != is.InstanceID || is.Host != r.host.ID {
			t.Errorf("%s was %+v, is %+v", name, was, is)
		}
	}
	if back := named(t, s.Snapshot(), "goes"); back.Desired != state.Started {
		t.Errorf("what was destroyed after the export is %+v, want as the export has it", back)
	}
	// Whatever is created is a thing of its own.
	w := world{Store: open(t, e), host: r.host}
	for _, name := range []string{"late", "elsewhere"} {
		n := w.newMachine(name)
		n.App = named(t, r.snapshot, name).App
		_, _, err := w.CreateMachine(within(t), n)
		refused(t, err, state.Conflict, "name")
	}
	used := map[string]string{}
	for _, m := range s.Snapshot().Machines {
		used[m.Addr().String()] = m.Name
	}
	if next := w.machine(t, "next"); used[next.Addr().String()] != "" {
		t.Errorf("a new Machine has the address of %s", used[next.Addr().String()])
	}
	if whole := open(t, e).Snapshot(); len(whole.Orgs) != 2 || len(whole.Unreadable) != 0 {
		t.Errorf("there are orgs %v, unreadable are %v", whole.Orgs, whole.Unreadable)
	}
}

// TestAHostThatTheExportDoesNotKnow keeps its number, name and Machines.
func TestAHostThatTheExportDoesNotKnow(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	e := start(t, dir)
	w := populate(t, open(t, e))
	r := &restoring{file: filepath.Join(directory(t), "last.json"), client: socketClient(t, dir), export: exportFrom(t, e.Client())}
	young := newHost(2)
	var err error
	r.host, _, err = w.JoinHost(within(t), young)
	must(t, err)
	n := w.newMachine("here")
	n.Host = r.host.ID
	m, revision, err := w.CreateMachine(within(t), n)
	must(t, err)
	s := openWith(t, r.config(t))
	stop := runUntil(t, s)
	_, err = s.Reach(within(t), revision)
	must(t, err)
	stop()
	must(t, e.Close())

	restored := r.restoreTo(t, r.export)
	s = openWith(t, r.config(t))
	if got := named(t, s.Snapshot(), "here"); got.Addr() != m.Addr() {
		t.Errorf("its Machine is %+v, was %+v", got, m)
	}
	young.Known = r.host.ID
	if again, _, err := s.JoinHost(within(t), young); err != nil || again.ID != r.host.ID || again.PublicKey != r.host.PublicKey {
		t.Errorf("the host is %+v, error %v; was %+v", again, err, r.host)
	}
	another := newHost(3)
	if other, _, err := open(t, restored).JoinHost(within(t), another); err != nil || other.ID <= r.host.ID {
		t.Errorf("another host is %+v, error %v; want a number of its own", other, err)
	}
}

// TestWhatIsNoSuccessorIsRefused: an older store may be there by accident.
func TestWhatIsNoSuccessorIsRefused(t *testing.T) {
	t.Parallel()
	r, ended := newRestoring(t)
	first := r.restoreTo(t, r.export)
	_ = ended() // as above
	takes := func(what string, want bool) {
		t.Helper()
		s := openWith(t, r.config(t))
		if taken := s.Snapshot().Alarm() == ""; taken != want {
			t.Errorf("%s is taken: %v, want %v (alarm %q)", what, taken, want, s.Snapshot().Alarm())
		}
		if want { // and kept on disk
			runUntil(t, s)()
		}
	}
	at := func(e *state.Embedded) { // a client of its own: one that changes its endpoints does so a moment later
		client, err := clientv3.New(clientv3.Config{Endpoints: e.Client().Endpoints()})
		must(t, err)
		t.Cleanup(func() { must(t, client.Close()) })
		r.client = client
	}
	at(first)
	takes("the restored one", true)
	second := r.restoreTo(t, r.export) // of the same export
	at(second)
	takes("the one restored after it", true)

	at(first)
	takes("the one restored before", false)
	imported := startClosing(t, directory(t))
	must(t, r.export.Import(within(t), imported.Client()))
	at(imported)
	takes("an older state that nobody restored", false)
	third := r.restoreTo(t, r.export)
	at(third)
	_, err := third.Client().Put(within(t), "/sixpn/v1/import", "sum")
	must(t, err)
	takes("one whose import has not ended", false)
	_, err = third.Client().Delete(within(t), "/sixpn/v1/import")
	must(t, err)
	_, err = third.Client().Put(within(t), "/sixpn/v1/fleet", "OTHER")
	must(t, err)
	takes("that of another fleet", false)
	at(second)
	takes("the known one", true)
}

func TestExportKnowsItsFleet(t *testing.T) {
	t.Parallel()
	r, ended := newRestoring(t)
	r.restoreTo(t, r.export)
	_ = ended()
	if fleet := r.export.Fleet(); fleet == "" || state.LastFleet(r.file) != fleet || !strings.Contains(string(read(t, r.file)), fleet) {
		t.Errorf("the export is of fleet %q, the file of %q", fleet, state.LastFleet(r.file))
	}
	if got := state.LastFleet(r.file + ".none"); got != "" {
		t.Errorf("a file that is not there is of fleet %q", got)
	}
}
