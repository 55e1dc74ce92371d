package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
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

func newWorld(t *testing.T) *world {
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
		machines: newPlayedMachines(), plane: &playedPlane{}, routes: document(t),
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
	server := api.NewServer(api.Config{
		Store: w.store, Machines: w.machines, DataPlane: w.plane, Host: w.host, Region: "ams", Log: log,
		MaxBody: maxBody, MaxOutput: maxOutput, ApplyTimeout: applyTimeout,
	})
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

// answer is what came back.
type answer struct {
	code    int
	header  http.Header
	body    []byte
	failure api.Failure
}

func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("answer %d %s: %v", a.code, a.body, err)
	}
}

// ask sends a request and checks that the answer is one that the document has.
func (w *world) ask(method, path, contentType, body string) answer {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, "http://sixpn"+path, strings.NewReader(body))
	must(w.t, err)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := w.http.Do(request)
	must(w.t, err)
	defer response.Body.Close()
	a := answer{code: response.StatusCode, header: response.Header}
	a.body, err = io.ReadAll(response.Body)
	must(w.t, err)
	w.documented(request, a)
	if a.code >= 400 {
		a.into(w.t, &a.failure)
	}
	return a
}

// later asks while the test goes on. The answer is empty if there was none.
func (w *world) later(method, path, body string) <-chan answer {
	answered := make(chan answer, 1)
	go func() {
		defer close(answered)
		answered <- w.ask(method, path, contentType(body), body)
	}()
	return answered
}

func (w *world) get(path string) answer { return w.ask("GET", path, "", "") }
func (w *world) post(path, body string) answer {
	return w.ask("POST", path, "application/json", body)
}

func (w *world) documented(request *http.Request, a answer) {
	w.t.Helper()
	route, parameters, err := w.routes.FindRoute(request)
	if err != nil {
		if a.code != http.StatusNotFound && a.code != http.StatusMethodNotAllowed {
			w.t.Errorf("%s %s is answered %d and not in the document: %v", request.Method, request.URL, a.code, err)
		}
		return
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: request, PathParams: parameters, Route: route},
		Status:                 a.code, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		w.t.Errorf("the answer to %s %s is not as documented: %v", request.Method, request.URL, err)
	}
}

// playedMachines is the Machines of a host: their logs are what tests append.
type playedMachines struct {
	exec func(ctx context.Context, id string, c api.Command) (int, error)

	mu      sync.Mutex
	log     []byte
	changed chan struct{}
	failure error
}

func newPlayedMachines() *playedMachines {
	return &playedMachines{changed: make(chan struct{})}
}

func (p *playedMachines) Exec(ctx context.Context, id string, c api.Command) (int, error) {
	return p.exec(ctx, id, c)
}

func (p *playedMachines) append(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, text...)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *playedMachines) Logs(ctx context.Context, _ string, follow bool, w io.Writer) error {
	written := 0
	for ended := !follow; ; {
		p.mu.Lock()
		more, changed, failure := p.log[written:], p.changed, p.failure
		p.mu.Unlock()
		if failure != nil {
			return failure
		}
		n, err := w.Write(more)
		written += n
		if err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			ended = true
		case <-changed:
		}
	}
}

// playedPlane is a data plane that has what release says.
type playedPlane struct {
	status  api.Status
	failure error

	mu      sync.Mutex
	asked   []int64
	release chan struct{} // nil: at once
}

func (p *playedPlane) Status(context.Context) (api.Status, error) { return p.status, p.failure }

func (p *playedPlane) Applied(ctx context.Context, revision int64) error {
	p.mu.Lock()
	p.asked = append(p.asked, revision)
	release := p.release
	p.mu.Unlock()
	if release == nil {
		return p.failure
	}
	select {
	case <-release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
