package machine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// server listens on 8080/tcp and 9000/udp, on each when it is told to by a file.
const server = `python3 -uc '
import os, socket, time
def bind(kind, port):
    while not os.path.exists("/tmp/%d" % port): time.sleep(0.01)
    s = socket.socket(socket.AF_INET6, kind)
    s.bind(("::", port))
    if kind == socket.SOCK_STREAM: s.listen()
    print("bound", port)
    return s
sockets = [bind(socket.SOCK_STREAM, 8080), bind(socket.SOCK_DGRAM, 9000)]
time.sleep(1000)'`

func serving(id, script string) state.Machine {
	m := record(id, script)
	m.Config.Services = []state.Service{
		{Protocol: "tcp", InternalPort: 8080, Ports: []state.ServicePort{{Port: 80}}},
		{Protocol: "udp", InternalPort: 9000, Ports: []state.ServicePort{{Port: 53}}},
	}
	return m
}

// newListenWorld is a world whose manager waits this long for listeners.
func newListenWorld(t *testing.T, timeout time.Duration) *world {
	t.Helper()
	w := newWorld(t)
	w.stop()
	w.listen = timeout
	w.startManager(t)
	return w
}

// process waits until a Machine's command runs.
func (w *world) process(t *testing.T, id string) (p *machine.Process) {
	t.Helper()
	await.True(t, "a run of machine "+id, func() (ok bool) {
		p, _ = w.manager.Process(id)
		return p != nil && p.Phase() == machine.PhaseRunning
	})
	return p
}

func TestMachineIsStartedOnceItListens(t *testing.T) {
	w := newListenWorld(t, time.Hour)
	w.store.put(serving("l", server))
	p := w.process(t, "l")
	for _, port := range []int{8080, 9000} {
		if m, _ := w.store.get("l"); m.State != state.Starting {
			t.Errorf("before it listens on %d it is %s", port, m.State)
		}
		code, err := p.Exec(await.Context(t), machine.ExecRequest{Exec: []string{"touch", fmt.Sprintf("/tmp/%d", port)}})
		if err != nil || code != 0 {
			t.Fatalf("exit code %d, %v", code, err)
		}
		waitOutput(t, w.driver, "l", fmt.Sprintf("bound %d", port))
	}
	w.waitFor(t, "l", state.Started)
}

// TestAdoptedMachineIsStartedOnceItListens: the agent that started it has ended.
func TestAdoptedMachineIsStartedOnceItListens(t *testing.T) {
	w := newListenWorld(t, time.Hour)
	w.store.put(serving("a", server))
	w.process(t, "a")
	w.stop()
	w.startManager(t)
	p := w.process(t, "a")
	if m, _ := w.store.get("a"); m.State != state.Starting {
		t.Errorf("before it listens it is %s", m.State)
	}
	if _, err := p.Exec(await.Context(t), machine.ExecRequest{Exec: []string{"touch", "/tmp/8080", "/tmp/9000"}}); err != nil {
		t.Fatal(err)
	}
	w.waitFor(t, "a", state.Started)
}

func TestMachineThatNeverListensIsStartedInTheEnd(t *testing.T) {
	w := newListenWorld(t, time.Millisecond)
	w.store.put(serving("n", forever))
	w.waitFor(t, "n", state.Started)
}

func TestMachineIsStoppedBeforeItListens(t *testing.T) {
	w := newListenWorld(t, time.Hour)
	w.store.put(serving("s", forever))
	w.process(t, "s")
	waitOutput(t, w.driver, "s", "up")
	w.store.order(t, "s", func(m *state.Machine) { m.Desired = state.Stopped })
	w.waitFor(t, "s", state.Stopped)
	if happened := strings.Join(w.journal.all(), ", "); strings.Contains(happened, "state started") {
		t.Errorf("it counted as started: %s", happened)
	}
}

func TestMachineEndsBeforeItListens(t *testing.T) {
	w := newListenWorld(t, time.Hour)
	w.store.put(serving("e", "exit 3"))
	if m := w.waitFor(t, "e", state.Stopped); m.ExitCode == nil || *m.ExitCode != 3 {
		t.Errorf("exit code %v, expected 3", m.ExitCode)
	}
}

// TestPendingStartIsNoted: a restart was asked for while the Machine was starting, and
// the agent that was at it is gone, so that the record says "starting" already.
func TestPendingStartIsNoted(t *testing.T) {
	w := newWorld(t)
	m := record("p", forever)
	m.State, m.Pending = state.Starting, m.InstanceID
	w.store.put(m)
	if m := w.waitFor(t, "p", state.Started); m.Pending != "" {
		t.Errorf("it is started, and the start of instance %q is still pending", m.Pending)
	}
}
