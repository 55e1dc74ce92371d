package api_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// world is a server on a real socket with a real store behind it. Only what an
// agent would do with Machines and the kernel is played.
type world struct {
	t        *testing.T
	store    *state.Store
	etcd     *clientv3.Client
	host     sixpn.Host
	machines *playedMachines
	plane    *playedPlane
	names    *playedNames
	socket   string
	http     *http.Client
	routes   routers.Router
	stop     func() // the server, which must end well
}

// settings of the server that tests reach the ends of.
const (
	maxBody   = 64 << 10
	maxOutput = 16

	applyTimeout = 2 * time.Second
)

// measured is how far the regions are from the host.
var measured = state.NewDistances("ams", map[string]time.Duration{"fra": 9500 * time.Microsecond})

// newWorld makes one; changes are made to the configuration of its server, once there is
// a store.
func newWorld(t *testing.T, changes ...func(*world, *api.Config)) *world {
	t.Helper()
	// A test's own directory may be too long for a socket.
	dir, err := os.MkdirTemp("", "api")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	embedded, err := state.StartEmbedded(t.Context(), state.EmbeddedConfig{Dir: filepath.Join(dir, "state"), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { embedded.Close() })
	w := &world{
		t: t, etcd: embedded.Client(), socket: filepath.Join(dir, "api.sock"),
		machines: newPlayedMachines(), plane: &playedPlane{}, names: &playedNames{}, routes: document(t),
	}
	w.store, err = state.Open(t.Context(), embedded.Client(), log)
	must(t, err)
	host, _, err := w.store.RegisterHost(t.Context(), "one", "ams", 0)
	must(t, err)
	w.host = host.ID

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.store.Run(ctx) }) // ends with ctx, whose error it returns
	l, err := api.Listen(w.socket)
	must(t, err)
	config := api.Config{
		Store: w.store, Machines: w.machines, DataPlane: w.plane, Resolver: w.names, Pinger: w.names, Inviter: playedInviter{w.store}, Keys: playedKeys{w}, Keeper: playedKeeper{},
		Host: w.host, Region: "ams", Distances: func() *state.Distances { return measured }, Hosts: playedHosts{w.host}, Log: log,
		MaxBody: maxBody, MaxOutput: maxOutput, ApplyTimeout: applyTimeout,
	}
	for _, change := range changes {
		change(w, &config)
	}
	server := api.NewServer(config)
	served := make(chan error, 1)
	serving, stopServing := context.WithCancel(ctx)
	go func() { served <- server.Serve(serving, l) }()
	w.stop = sync.OnceFunc(func() {
		stopServing()
		if err := <-served; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	t.Cleanup(func() {
		w.stop()
		cancel()
		running.Wait()
	})
	w.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
		},
	}}
	t.Cleanup(w.http.CloseIdleConnections)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// document reads openapi.yaml, which must be valid.
func document(t *testing.T) routers.Router {
	t.Helper()
	loaded, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	must(t, err)
	must(t, loaded.Validate(t.Context()))
	router, err := legacy.NewRouter(loaded)
	must(t, err)
	return router
}

// seed makes two orgs with an app each, a Machine that runs and an address.
func (w *world) seed() (machine state.Machine, ip netip.Addr) {
	w.t.Helper()
	ctx := w.t.Context()
	for _, row := range [][2]string{{"acme", "web"}, {"other", "shop"}} {
		_, _, err := w.store.CreateOrg(ctx, row[0], row[0])
		must(w.t, err)
		_, _, err = w.store.CreateApp(ctx, row[1], row[0], "")
		must(w.t, err)
	}
	machine = w.create("web", state.Restart{})
	vip, revision, err := w.store.AllocateVIP(ctx, "web", "", "")
	must(w.t, err)
	w.seen(revision)
	return w.become(machine.ID, state.Started, nil), vip.Addr()
}

func (w *world) create(app string, restart state.Restart) state.Machine {
	w.t.Helper()
	m, revision, err := w.store.CreateMachine(w.t.Context(), state.NewMachine{
		App: app, Region: "ams", Host: w.host,
		Config: state.MachineConfig{Init: state.Init{Exec: []string{"sleep", "60"}}, Restart: restart},
	})
	must(w.t, err)
	w.seen(revision)
	return m
}

// become is what the host sees of a Machine.
func (w *world) become(id string, s state.MachineState, code *int) state.Machine {
	w.t.Helper()
	m, revision, err := w.store.UpdateMachine(w.t.Context(), id, func(m *state.Machine) error {
		m.State, m.ExitCode = s, code
		return nil
	})
	must(w.t, err)
	w.seen(revision)
	return m
}

// seen waits until the snapshot has a revision.
func (w *world) seen(revision int64) {
	w.t.Helper()
	_, err := w.store.Wait(w.t.Context(), revision-1)
	must(w.t, err)
}

// revision is that of the last write of anything.
func (w *world) revision() int64 {
	w.t.Helper()
	r, err := w.etcd.Get(w.t.Context(), "\x00")
	must(w.t, err)
	return r.Header.Revision
}
