package state_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// deadline is how long anything that a test waits for may take.
const deadline = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func logTo(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// directory is a short path: a unix socket must fit in.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "state")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, dir string) *state.Embedded {
	t.Helper()
	e, err := state.StartEmbedded(within(t), state.EmbeddedConfig{Dir: dir, Log: logTo(t)})
	must(t, err)
	return e
}

func startClosing(t *testing.T, dir string) *state.Embedded {
	t.Helper()
	e := start(t, dir)
	t.Cleanup(func() { must(t, e.Close()) })
	return e
}

func open(t *testing.T, e *state.Embedded) *state.Store {
	t.Helper()
	s, err := state.Open(within(t), e.Client(), logTo(t))
	must(t, err)
	return s
}

// run keeps a store current until the test ends.
func run(t *testing.T, s *state.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v, want the context's error", err)
		}
	})
}

// running is a store on a new embedded one, kept current.
func running(t *testing.T) *state.Store {
	t.Helper()
	s := open(t, startClosing(t, directory(t)))
	run(t, s)
	return s
}

// world is what most tests need: acme with web, and a host.
type world struct {
	*state.Store
	web    state.App
	host   state.Host
	stores []*state.Store
}

// newWorld has further stores, which contend as those of other processes do.
func newWorld(t *testing.T) world {
	t.Helper()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	w := populate(t, s)
	w.stores = []*state.Store{s, open(t, e), open(t, e), open(t, e)}
	return w
}

// contender is one of the stores.
func (w world) contender(i int) *state.Store { return w.stores[i%len(w.stores)] }

func populate(t *testing.T, s *state.Store) world {
	t.Helper()
	ctx := within(t)
	_, _, err := s.CreateOrg(ctx, "acme", "Acme")
	must(t, err)
	web, _, err := s.CreateApp(ctx, "web", "acme", "")
	must(t, err)
	host, _, err := s.RegisterHost(ctx, "host-1", "fra", 0)
	must(t, err)
	return world{s, web, host, []*state.Store{s}}
}

func (w world) newMachine(name string) state.NewMachine {
	return state.NewMachine{App: "web", Name: name, Host: w.host.ID, Config: config()}
}

func (w world) machine(t *testing.T, name string) state.Machine {
	t.Helper()
	m, _, err := w.CreateMachine(within(t), w.newMachine(name))
	must(t, err)
	return m
}

// at is the snapshot that has a revision.
func at(t *testing.T, s *state.Store, revision int64) *state.Snapshot {
	t.Helper()
	snapshot, err := s.Wait(within(t), revision-1)
	must(t, err)
	return snapshot
}

// config passes every rule.
func config() state.MachineConfig {
	return state.MachineConfig{
		Init:     state.Init{Exec: []string{"python3", "-m", "http.server"}},
		Env:      map[string]string{"LANG": "C"},
		Metadata: map[string]string{"fly_process_group": "app"},
		Services: []state.Service{
			{Protocol: "tcp", InternalPort: 8080, Ports: []state.ServicePort{{Port: 80}, {StartPort: 8000, EndPort: 8010}}},
			{Protocol: "udp", InternalPort: 5353, Ports: []state.ServicePort{{Port: 53}}},
		},
		Restart:    state.Restart{Policy: "on-failure", MaxRetries: 3},
		StopConfig: state.StopConfig{Signal: "SIGINT", Timeout: 5 * time.Second},
		WorkDir:    "/srv",
		MTU:        1420,
	}
}

// refused checks an error's kind and field.
func refused(t *testing.T, err error, kind state.ErrorKind, field string) {
	t.Helper()
	var e *state.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want one of kind %v", err, kind)
	}
	if e.Kind != kind || e.Field != field || e.Message == "" {
		t.Errorf("got %v error about field %q (%v), want %v about %q", e.Kind, e.Field, err, kind, field)
	}
}

// heldKey is the lease of a host that is kept alive without an agent.
type heldKey struct {
	client *clientv3.Client
	lease  clientv3.LeaseID
}

// keepAlive makes a host present until revoke, or for longer than any test takes.
func keepAlive(t *testing.T, client *clientv3.Client, h sixpn.Host) heldKey {
	t.Helper()
	lease, err := client.Grant(within(t), 3600)
	must(t, err)
	_, err = client.Put(within(t), "/sixpn/v1/hosts/"+hex8(h)+"/alive", `{"session":"of `+hex8(h)+`"}`, clientv3.WithLease(lease.ID))
	must(t, err)
	return heldKey{client, lease.ID}
}

// revoke has the store do what it does when the lease expires.
func (k heldKey) revoke(t *testing.T) {
	t.Helper()
	_, err := k.client.Revoke(within(t), k.lease)
	must(t, err)
}

func hex8(h sixpn.Host) string { return fmt.Sprintf("%08x", uint32(h)) }

const missingHost sixpn.Host = 0x7fff

func orZero(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}
