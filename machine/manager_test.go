package machine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// world is a manager with everything around it.
type world struct {
	config         machine.DriverConfig
	driver         *machine.Driver
	store          *memoryStore
	ports          *memoryPorts
	journal        *journal
	manager        *machine.Manager
	listen, settle time.Duration // ListenTimeout and RelaySettle
	idle           time.Duration // RelayIdle
	sessions       int           // RelaySessions
	stop           func()        // ends the manager, as an agent that stops
}

func newWorld(t *testing.T) *world {
	t.Helper()
	j := &journal{}
	w := &world{config: driverConfig(t), store: newMemoryStore(j), ports: newMemoryPorts(j), journal: j}
	w.startManager(t)
	return w
}

// startManager is an agent that starts.
func (w *world) startManager(t *testing.T) {
	t.Helper()
	var err error
	if w.driver, err = machine.NewDriver(w.config); err != nil {
		t.Fatal(err)
	}
	w.manager, err = machine.NewManager(machine.ManagerConfig{
		Name: w.config.Name, Driver: w.driver, Store: w.store, Ports: w.ports, RetryInterval: 5 * time.Millisecond,
		ListenTimeout: w.listen, RelaySettle: w.settle, RelayInterval: 5 * time.Millisecond,
		RelayIdle: w.idle, RelaySessions: w.sessions,
		Backoff: machine.Backoff{Initial: time.Millisecond, Max: 10 * time.Millisecond},
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.manager.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(w.stop)
}

// record is one of a Machine that shall run a script.
func record(id, script string) state.Machine {
	return state.Machine{
		ID: id, App: "web", Network: 0x18, Host: 7, Number: 0xa, Region: "ams", InstanceID: "first",
		Desired: state.Started, State: state.Created,
		Config: state.MachineConfig{Init: state.Init{Exec: []string{"sh", "-c", script}}},
	}
}

const forever = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 60 & wait; done"

func (w *world) waitFor(t *testing.T, id string, want state.MachineState) state.Machine {
	t.Helper()
	var m state.Machine
	await.True(t, fmt.Sprintf("machine %s in state %s", id, want), func() bool {
		m, _ = w.store.get(id)
		return m.State == want
	})
	return m
}

func (w *world) waitGone(t *testing.T, id string) {
	t.Helper()
	await.True(t, "machine "+id+" gone", func() bool {
		_, ok := w.store.get(id)
		return !ok
	})
}

func (w *world) expectJournal(t *testing.T, want ...string) {
	t.Helper()
	await.True(t, fmt.Sprintf("journal %q", want), func() bool { return len(w.journal.all()) >= len(want) })
	if diff := cmp.Diff(want, w.journal.all()); diff != "" {
		t.Errorf("what happened (-want +got):\n%s", diff)
	}
}

func TestManagerStartStopDestroy(t *testing.T) {
	w := newWorld(t)
	const id = "0123456789abcd"
	w.store.put(record(id, forever))
	w.waitFor(t, id, state.Started)
	w.expectJournal(t, "state starting", "port added", "state started")
	waitOutput(t, w.driver, id, "up")
	port, _ := w.ports.get(id)
	if port.Device != "m"+id || port.Network != 0x18 || port.Host != 7 || port.Number != 0xa || port.MTU != machine.DefaultMTU || !port.Peer {
		t.Errorf("port %+v is not of the record", port)
	}

	w.journal.clear()
	w.store.order(t, id, func(m *state.Machine) { m.Desired = state.Stopped })
	m := w.waitFor(t, id, state.Stopped)
	if m.ExitCode == nil || *m.ExitCode != 0 {
		t.Errorf("exit code %v, expected 0", m.ExitCode)
	}
	w.expectJournal(t, "state stopping", "applied", "state stopped", "port removed")
	waitOutput(t, w.driver, id, "bye")

	w.journal.clear()
	w.store.order(t, id, func(m *state.Machine) { m.Desired, m.InstanceID = state.Started, "second" })
	w.waitFor(t, id, state.Started)

	w.journal.clear()
	w.store.order(t, id, func(m *state.Machine) { m.Desired = state.Destroyed })
	w.waitGone(t, id)
	w.expectJournal(t, "state stopping", "applied", "port removed", "state destroying", "destroyed")
	if err := w.driver.Logs(t.Context(), id, false, &buffer{}); err == nil {
		t.Error("the logs of a destroyed machine are still there")
	}
}

func TestManagerRestartIsANewInstance(t *testing.T) {
	w := newWorld(t)
	w.store.put(record("r", forever))
	w.waitFor(t, "r", state.Started)
	waitOutput(t, w.driver, "r", "up")
	w.journal.clear()
	w.store.order(t, "r", func(m *state.Machine) { m.InstanceID = "second" })
	w.expectJournal(t, "state stopping", "applied", "state stopped", "port removed", "state starting", "port added", "state started")
	if out := output(t, w.driver, "r"); !strings.Contains(out, "bye") {
		t.Errorf("output %q, expected the first run to have ended by its signal", out)
	}
}

func TestManagerRestartPolicy(t *testing.T) {
	for _, row := range []struct {
		name, policy, script string
		retries              int
		state                state.MachineState
		code, restarts       int
	}{
		{"no", "no", "exit 3", 0, state.Stopped, 3, 0},
		{"default", "", "exit 3", 0, state.Stopped, 3, 0},
		{"clean", "on-failure", "exit 0", 0, state.Stopped, 0, 0},
		{"failure", "on-failure", "exit 3", 2, state.Failed, 3, 2},
		{"always", "always", "exit 0", 3, state.Failed, 0, 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			m := record("p", row.script)
			m.Config.Restart = state.Restart{Policy: row.policy, MaxRetries: row.retries}
			w.store.put(m)
			await.True(t, "the last state", func() bool {
				m, _ = w.store.get("p")
				_, connected := w.ports.get("p")
				return m.State == row.state && m.Restarts == row.restarts && !connected
			})
			if m.ExitCode == nil || *m.ExitCode != row.code {
				t.Errorf("exit code %v, expected %d", m.ExitCode, row.code)
			}
		})
	}
}

func TestManagerSaysWhyAMachineFailed(t *testing.T) {
	w := newWorld(t)
	m := record("f", "")
	m.Config.Init.Exec = []string{"no-such-program"}
	w.store.put(m)
	m = w.waitFor(t, "f", state.Failed)
	if !strings.Contains(m.Message, "not found in PATH") {
		t.Errorf("message %q does not say why", m.Message)
	}
	if _, err := machine.FindVeth("f"); err == nil {
		t.Error("its device is still there")
	}
	// Another agent does not try again what no policy asks for.
	w.stop()
	w.journal.clear()
	w.startManager(t)
	<-w.manager.Adopted()
	w.store.put(record("other", forever))
	w.waitFor(t, "other", state.Started)
	w.expectJournal(t, "state starting", "port added", "state started")
}

func TestManagerPortThatFails(t *testing.T) {
	w := newWorld(t)
	w.ports.mu.Lock()
	w.ports.failure = errors.New("the verifier said no")
	w.ports.mu.Unlock()
	w.store.put(record("f", "echo ran"))
	m := w.waitFor(t, "f", state.Failed)
	if !strings.Contains(m.Message, "the verifier said no") {
		t.Errorf("message %q does not say why", m.Message)
	}
	if out := output(t, w.driver, "f"); out != "" {
		t.Errorf("its command ran without a port: %q", out)
	}
}

func TestManagerAutoDestroy(t *testing.T) {
	w := newWorld(t)
	m := record("a", "exit 0")
	m.Config.AutoDestroy = true
	w.store.put(m)
	w.waitGone(t, "a")
}

// waitOutputOf waits until a Machine has started and written something.
func waitOutputOf(t *testing.T, w *world, id, want string) {
	t.Helper()
	w.waitFor(t, id, state.Started)
	waitOutput(t, w.driver, id, want)
}

func TestManagerAdoptsWhatRuns(t *testing.T) {
	w := newWorld(t)
	w.store.put(record("k", forever))
	waitOutputOf(t, w, "k", "up")
	before, _ := w.ports.get("k")
	w.stop()

	w.journal.clear()
	w.startManager(t)
	<-w.manager.Adopted()
	w.expectJournal(t, "port adopted")
	after, _ := w.ports.get("k")
	before.Adopted = true
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("adopted port (-before +after):\n%s", diff)
	}
	if _, err := w.manager.Process("k"); err != nil {
		t.Error(err)
	}
	if out := output(t, w.driver, "k"); out != "up\n" {
		t.Errorf("output %q, expected one run", out)
	}
}

func TestManagerLearnsWhatEndedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.store.put(record("k", "echo up; while [ ! -e /tmp/go ]; do sleep 0.01; done; exit 5"))
	waitOutputOf(t, w, "k", "up")
	p, err := w.manager.Process("k")
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	if _, err := p.Exec(await.Context(t), machine.ExecRequest{Exec: []string{"touch", "/tmp/go"}}); err != nil {
		t.Log(err) // the Machine may end before the answer
	}
	wait(t, p)
	w.startManager(t)
	m := w.waitFor(t, "k", state.Stopped)
	if m.ExitCode == nil || *m.ExitCode != 5 {
		t.Errorf("exit code %v, expected 5", m.ExitCode)
	}
}

func TestManagerDestroysWhatHasNoRecord(t *testing.T) {
	w := newWorld(t)
	w.store.put(record("k", forever))
	waitOutputOf(t, w, "k", "up")
	p, err := w.manager.Process("k")
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	if _, err := w.store.DestroyMachine(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	w.startManager(t)
	wait(t, p)
	await.True(t, "its directory removed", func() bool { return w.driver.Logs(t.Context(), "k", false, &buffer{}) != nil })
}

func TestManagerStoreAway(t *testing.T) {
	w := newWorld(t)
	m := record("k", "echo up; while [ ! -e /tmp/go ]; do sleep 0.01; done; exit 5")
	m.Config.Restart.Policy = "always"
	w.store.put(m)
	waitOutputOf(t, w, "k", "up")
	w.store.setAway(errors.New("no leader"))
	p, err := w.manager.Process("k")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = p.Exec(await.Context(t), machine.ExecRequest{Exec: []string{"touch", "/tmp/go"}})
	wait(t, p)
	await.True(t, "started again by policy, the store away", func() bool { return strings.Count(output(t, w.driver, "k"), "up") == 2 })
	w.store.setAway(nil)
	await.True(t, "the record says so", func() bool {
		m, _ := w.store.get("k")
		return m.State == state.Started && m.Restarts == 1 && m.ExitCode != nil && *m.ExitCode == 5
	})
}

func TestManagerStopsAFrozenMachine(t *testing.T) {
	w := newWorld(t)
	w.store.put(record("z", forever))
	waitOutputOf(t, w, "z", "up")
	p, err := w.manager.Process("z")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Freeze(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	w.store.order(t, "z", func(m *state.Machine) { m.Desired = state.Stopped })
	w.waitFor(t, "z", state.Stopped)
	waitOutput(t, w.driver, "z", "bye")
}

func TestManagerTriesAnAdoptedPortAgain(t *testing.T) {
	w := newWorld(t)
	w.store.put(record("k", forever))
	waitOutputOf(t, w, "k", "up")
	w.stop()
	setFailure := func(err error) {
		w.ports.mu.Lock()
		defer w.ports.mu.Unlock()
		w.ports.failure = err
	}
	setFailure(errors.New("not yet"))
	w.journal.clear()
	w.startManager(t)
	<-w.manager.Adopted()
	setFailure(nil)
	w.expectJournal(t, "port adopted")
	if _, err := w.manager.Process("k"); err != nil {
		t.Error(err)
	}
}

func TestManagerKilledMachineFollowsItsPolicy(t *testing.T) {
	w := newWorld(t)
	m := record("k", forever)
	m.Config.Restart.Policy = "on-failure"
	w.store.put(m)
	waitOutputOf(t, w, "k", "up")
	p, err := w.manager.Process("k")
	if err != nil {
		t.Fatal(err)
	}
	killSupervisor(t, p)
	wait(t, p)
	await.True(t, "it runs again", func() bool {
		m, _ = w.store.get("k")
		return m.State == state.Started && m.Restarts == 1 && m.ExitCode != nil && *m.ExitCode == 137
	})
}
