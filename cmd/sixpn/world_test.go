package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

// world is what the command line talks to: a real store and server on a real
// socket. Only the host is played: it does what Machines' records ask for.
type world struct {
	t      *testing.T
	store  *state.Store
	etcd   *clientv3.Client
	host   sixpn.Host
	socket string
	status api.Status
	live   api.Live

	mu      sync.Mutex
	logs    map[string][]byte
	stamped map[string][]byte // the same, each line with a time
	lines   int64             // of all
	signals []string          // that were sent: id and name
	applied []int64           // revisions that were waited for

	executing chan struct{} // gets a word when the command "forever" begins
}

func newWorld(t *testing.T) *world {
	t.Helper()
	// A test's own directory may be too long for a socket.
	dir, err := os.MkdirTemp("", "cli")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	embedded, err := state.StartEmbedded(t.Context(), state.EmbeddedConfig{Dir: filepath.Join(dir, "state"), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { embedded.Close() })
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	w := &world{t: t, socket: filepath.Join(dir, "api.sock"), logs: map[string][]byte{}, stamped: map[string][]byte{}, executing: make(chan struct{}, 1)}
	w.etcd = embedded.Client()
	w.store, err = state.Open(t.Context(), w.etcd, log)
	must(t, err)
	host, _, err := w.store.RegisterHost(t.Context(), "one", "ams", 0)
	must(t, err)
	w.host = host.ID
	l, err := api.Listen(w.socket)
	must(t, err)
	server := api.NewServer(api.Config{Store: w.store, Machines: w, DataPlane: w, Inviter: w, Keys: w, Keeper: keeper{embedded}, Hosts: w, Host: w.host, Region: "ams", Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, task := range []func(context.Context) error{
		w.store.Run, w.play, w.endCordons, func(ctx context.Context) error { return server.Serve(ctx, l) },
	} {
		running.Go(func() {
			if err := task(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	t.Setenv("SIXPN_SOCKET", w.socket)
	return w
}

// Probe is as if packets of the smallest MTU passed, and "lost" were away.
func (w *world) Probe(_ context.Context, h state.Host) (api.HostProbe, error) {
	if h.Name == "lost" {
		return api.HostProbe{Host: h.Name, Way: api.HostProbeWayNone, MTU: 1420, Error: "no route to host"}, nil
	}
	return api.HostProbe{Host: h.Name, Way: api.HostProbeWayBoth, MTU: 1420, Passes: 1280, Answers: true, ClockOffsetMs: new(1500.0), ClockErrorMs: new(1.0), Version: "v2"}, nil
}

// Seen is as if every other host were as far, and "lost" away.
func (w *world) Seen(_ context.Context, hosts []state.Host, ask bool) []api.HostSeen {
	seen := make([]api.HostSeen, len(hosts))
	for i, h := range hosts {
		s := &seen[i]
		s.Heard = time.Now().Add(time.Hour) // so that it is "0s" however slow the test
		if h.ID != w.host {
			s.RoundTrip = flycast.RoundTrip{Host: h.ID, Smoothed: 4200 * time.Microsecond, Probes: 4, Loss: 0.25}
			s.Handshake = time.Now().Add(-time.Hour)
		}
		switch {
		case h.Name == "lost":
			s.Heard, s.Err = time.Time{}, errors.New("no route to host")
		case ask && h.ID == w.host:
			s.Store, s.Report = api.StoreMemberRoleVoter, &api.HostReport{Version: "v1", Mesh: "kernel", Wanted: 7, Applied: 7}
		case ask:
			s.Report = &api.HostReport{Version: "v2", Mesh: "native", XDP: "generic", Wanted: 7, Applied: 5, Trouble: "a table is full"}
		}
	}
	return seen
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// play is the host. A Machine writes the words after its first, and how it goes
// on its first word says: "run" runs until it is stopped, "exit" ends at once
// with the code that is its second word, "fail" cannot be started.
func (w *world) play(ctx context.Context) error {
	snapshot := w.store.Snapshot()
	for {
		for _, m := range snapshot.HostMachines(w.host) {
			if err := w.step(ctx, m); err != nil {
				return err
			}
		}
		var err error
		if snapshot, err = w.store.Wait(ctx, snapshot.Revision); err != nil {
			return err
		}
	}
}

func (w *world) endCordons(ctx context.Context) error { return w.store.EndCordons(ctx, w.host, 0) }

func (w *world) step(ctx context.Context, m state.Machine) error {
	become := func(s state.MachineState, code *int, message string) error {
		seen := m
		_, _, err := w.store.UpdateMachine(ctx, m.ID, func(m *state.Machine) error {
			if m.InstanceID != seen.InstanceID || m.State != seen.State || m.Desired != seen.Desired {
				return nil // something else is asked for by now, of which the next snapshot tells
			}
			m.State, m.Message = s, message
			if s == state.Starting {
				m.Pending = ""
			}
			if code != nil {
				m.ExitCode = code
			}
			return nil
		})
		if state.KindOf(err) == state.NotFound {
			return nil // an older snapshot than the destruction
		}
		return err
	}
	at := func(states ...state.MachineState) bool {
		for _, s := range states {
			if m.State == s {
				return true
			}
		}
		return false
	}
	code := 0
	switch words := m.Config.Init.Exec; {
	case m.Desired == state.Destroyed && at(state.Starting, state.Started):
		return become(state.Stopping, nil, "")
	case m.Desired == state.Destroyed && at(state.Stopping):
		return become(state.Destroying, nil, "")
	case m.Desired == state.Destroyed:
		_, err := w.store.DestroyMachine(ctx, m.ID)
		if state.KindOf(err) == state.NotFound {
			return nil
		}
		return err
	case m.Desired == state.Stopped && at(state.Starting, state.Started):
		return become(state.Stopping, nil, "")
	case m.Desired == state.Stopped && at(state.Stopping):
		return become(state.Stopped, &code, "")
	case m.Desired == state.Started && at(state.Stopping):
		return become(state.Stopped, &code, "")
	case m.Desired == state.Suspended && at(state.Started):
		return become(state.Suspending, nil, "")
	case m.Desired == state.Suspended && at(state.Suspending):
		return become(state.Suspended, nil, "")
	case m.Desired == state.Started && at(state.Suspended):
		return become(state.Started, nil, "")
	case m.Desired == state.Started && (at(state.Created) || at(state.Stopped) && m.Pending == m.InstanceID):
		return become(state.Starting, nil, "")
	case m.Desired == state.Started && at(state.Starting) && m.Config.Attach != nil:
		return become(state.Started, nil, "")
	case len(words) == 0: // attached
	case m.Desired == state.Started && at(state.Starting) && words[0] == "fail":
		return become(state.Failed, nil, strings.Join(words[1:], " "))
	case m.Desired == state.Started && at(state.Starting):
		w.mu.Lock()
		w.log(m.ID, strings.Join(words[1:], " ")+"\n")
		w.mu.Unlock()
		return become(state.Started, nil, "")
	case m.Desired == state.Started && at(state.Started) && words[0] == "exit":
		if _, err := fmt.Sscan(words[1], &code); err != nil {
			return err
		}
		return become(state.Stopped, &code, "")
	}
	return nil
}

// Signal is api.Machines.
func (w *world) Signal(_ context.Context, id string, signal syscall.Signal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signals = append(w.signals, fmt.Sprint(id, " ", unix.SignalName(signal)))
	return nil
}

// Exec is api.Machines: it says what it was asked for and exits with the number
// of its words.
func (w *world) Exec(ctx context.Context, _ string, c api.Command) (int, error) {
	if c.Exec[0] == "forever" {
		w.executing <- struct{}{}
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if c.Exec[0] == "cat" {
		if c.Stdin == nil {
			return 0, nil
		}
		_, err := io.Copy(c.Stdout, c.Stdin)
		return 0, err
	}
	if c.Exec[0] == "missing" {
		return 0, errors.New("missing is not found in PATH")
	}
	var stdin []byte
	if c.Stdin != nil {
		stdin, _ = io.ReadAll(c.Stdin)
	}
	fmt.Fprintf(c.Stdout, "%q %s\n", c.Exec, stdin)
	fmt.Fprintln(c.Stderr, "a warning")
	return len(c.Exec) - 1, nil
}

// Logs is api.Machines.
func (w *world) Logs(ctx context.Context, id string, q api.LogQuery, out io.Writer) error {
	written := 0
	if q.After != "" {
		w.mu.Lock()
		written = max(0, bytes.Index(append([]byte("\n"), w.stamped[id]...), []byte("\n"+q.After+" ")))
		w.mu.Unlock()
		if !q.Stamped {
			return errors.New("this host only knows where stamped lines begin")
		}
	}
	for {
		w.mu.Lock()
		text := w.logs[id]
		if q.Stamped {
			text = w.stamped[id]
		}
		more := bytes.Clone(text[written:])
		w.mu.Unlock()
		written += len(more)
		if _, err := out.Write(more); err != nil || !q.Follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond): // until there is more
		}
	}
}

// writes is what a Machine writes, each line at another second.
func (w *world) writes(id, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log(id, text)
}

// log is for who holds the lock.
func (w *world) log(id, text string) {
	for line := range strings.Lines(text) {
		if before := w.logs[id]; len(before) == 0 || before[len(before)-1] == '\n' {
			w.lines++
			at := time.Unix(w.lines, 0).UTC()
			w.stamped[id] = fmt.Appendf(w.stamped[id], "%s ", at.Format("2006-01-02T15:04:05.000000000Z"))
		}
		w.logs[id], w.stamped[id] = append(w.logs[id], line...), append(w.stamped[id], line...)
	}
}

// keeper is the store that the world is on.
type keeper struct{ *state.Embedded }

// StoreStatus is api.Keeper.
func (k keeper) StoreStatus(context.Context) (api.StoreStatus, error) {
	return api.StoreStatus{Kind: api.StoreStatusKindFleet, Revision: 7, Members: []api.StoreMember{
		{ID: "a", Host: "one", Endpoint: "https://192.0.2.1:51822", Role: api.StoreMemberRoleLeader, Answers: true, Revision: 7, Bytes: 2 << 20, Version: "3.7.3"},
		{ID: "b", Host: "two", Endpoint: "https://192.0.2.2:51822", Role: api.StoreMemberRoleVoter, Error: "it is away"},
	}}, nil
}

// Export is api.Keeper.
func (k keeper) Export(ctx context.Context, w io.Writer) error {
	_, err := state.Export(ctx, k.Client(), w)
	return err
}

// RotateKey is api.KeyRotator; the key itself is nobody's here.
func (w *world) RotateKey(ctx context.Context) (int64, error) {
	return w.store.SetDraining(ctx, w.host, false)
}

// Invite is api.Inviter.
func (w *world) Invite(ctx context.Context, region string, life time.Duration) (api.Invitation, int64, error) {
	i, revision, err := w.store.CreateInvitation(ctx, state.NewInvitation{ID: "invitation", Secret: []byte("secret"), Region: region, Lifetime: life})
	return api.Invitation{ID: i.ID, Token: "sixpn1.token", Region: i.Region, ExpiresAt: i.ExpiresAt}, revision, err
}

// Status is api.DataPlane.
func (w *world) Status(context.Context) (api.Status, error) { return w.status, nil }

// Live is api.DataPlane.
func (w *world) Live(context.Context, state.Machine) (api.Live, error) { return w.live, nil }

// Applied is api.DataPlane.
func (w *world) Applied(_ context.Context, revision int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = append(w.applied, revision)
	return nil
}

// result is what a run of the command line left behind.
type result struct {
	code     int
	out, err string
}

func sixpnIn(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return result{code, out.String(), errs.String()}
}

func sixpnRun(t *testing.T, args ...string) result {
	t.Helper()
	return sixpnIn(t, "", args...)
}

// do runs what must succeed.
func do(t *testing.T, args ...string) string {
	t.Helper()
	r := sixpnRun(t, args...)
	if r.code != exitDone {
		t.Fatalf("sixpn %s: exit code %d, stderr %s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// asJSON runs what must succeed with --json, and reads it.
func asJSON[T any](t *testing.T, args ...string) T {
	t.Helper()
	// First, so that it is no word of a Machine's command.
	return unmarshal[T](t, do(t, append([]string{"--json"}, args...)...))
}

func unmarshal[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// columns is a table without its spacing: one string a row.
func columns(out string) []string {
	var rows []string
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	return rows
}
