package machine_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// counting writes a number a moment until it is told to end.
const counting = "trap 'echo bye; exit 3' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done"

// counted is the last number that a counting Machine wrote.
func counted(t *testing.T, d *machine.Driver, id string) int {
	t.Helper()
	lines := strings.Fields(output(t, d, id))
	if len(lines) == 0 {
		return 0
	}
	n, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// frozen is what the kernel says about the payload of a Machine.
func frozen(t *testing.T, d *machine.Driver, id string) bool {
	t.Helper()
	b, err := os.ReadFile(machine.CgroupOf(d) + "/" + id + "/payload/cgroup.events")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), "frozen 1")
}

func (w *world) desire(t *testing.T, id string, desired state.MachineState) {
	t.Helper()
	w.store.order(t, id, func(m *state.Machine) { m.Desired = desired })
}

// suspended is a world with a Machine that counts and is suspended.
func suspended(t *testing.T, w *world, id string) {
	t.Helper()
	w.store.put(record(id, counting))
	w.waitFor(t, id, state.Started)
	await.True(t, "it counts", func() bool { return counted(t, w.driver, id) > 0 })
	w.journal.clear()
	w.desire(t, id, state.Suspended)
	w.waitFor(t, id, state.Suspended)
	if !frozen(t, w.driver, id) {
		t.Error("a suspended Machine is not frozen")
	}
}

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	const id = "1111111111aaaa"
	suspended(t, w, id)
	w.expectJournal(t, "state suspending", "applied", "state suspended")
	p, err := w.manager.Process(id)
	if err != nil {
		t.Fatal(err)
	}
	before, err := p.Processes()
	if err != nil {
		t.Fatal(err)
	}
	at := counted(t, w.driver, id)

	w.desire(t, id, state.Started)
	w.waitFor(t, id, state.Started)
	await.True(t, "it counts on", func() bool { return counted(t, w.driver, id) > at })
	after, err := p.Processes()
	if err != nil || after[0] != before[0] || after[1] != before[1] {
		t.Errorf("processes %v became %v (%v), expected the same init and command", before, after, err)
	}
	if numbers := strings.Fields(output(t, w.driver, id)); numbers[0] != "1" || strings.Count(output(t, w.driver, id), "\n1\n") > 0 {
		t.Error("it did not go on where it was")
	}
	w.expectJournal(t, "state suspending", "applied", "state suspended", "state started")
}

// TestSuspendedEnds shows each way on from a frozen Machine.
func TestSuspendedEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		order func(*state.Machine)
		state state.MachineState // "": the record goes
		code  int
	}{
		{"stop", func(m *state.Machine) { m.Desired = state.Stopped }, state.Stopped, 3},
		{"stop by SIGKILL", func(m *state.Machine) { m.Desired, m.Stop.Signal = state.Stopped, "SIGKILL" }, state.Stopped, 137},
		{"restart", func(m *state.Machine) { m.Desired, m.InstanceID = state.Started, "second" }, state.Started, 3},
		{"destroy", func(m *state.Machine) { m.Desired = state.Destroyed }, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			const id = "1111111111bbbb"
			suspended(t, w, id)
			w.store.order(t, id, c.order)
			if c.state == "" {
				w.waitGone(t, id)
				return
			}
			await.True(t, "it becomes what was asked for", func() bool {
				m, _ := w.store.get(id)
				return m.State == c.state && m.ExitCode != nil && *m.ExitCode == c.code
			})
		})
	}
}

// TestSuspendedIsKilled is a frozen Machine that something else ends: it is
// stopped, and no policy starts it.
func TestSuspendedIsKilled(t *testing.T) {
	w := newWorld(t)
	const id, other = "1111111111cccc", "1111111111cdcd"
	m := record(id, counting)
	m.Config.Restart.Policy = "always"
	w.store.put(m)
	w.waitFor(t, id, state.Started)
	w.desire(t, id, state.Suspended)
	w.waitFor(t, id, state.Suspended)
	p, err := w.manager.Process(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	w.waitFor(t, id, state.Stopped)
	// Another that comes and goes shows that this one was looked at again.
	w.store.put(record(other, "exit 0"))
	w.waitFor(t, other, state.Stopped)
	if _, err := w.manager.Process(id); err == nil {
		t.Error("it was started again")
	}
}

// TestSuspendSurvivesAgents ends the agent between any two steps of a suspend and
// of a resume.
func TestSuspendSurvivesAgents(t *testing.T) {
	for _, c := range []struct {
		step     string
		from, to state.MachineState
	}{
		{step: "suspending written", from: state.Started, to: state.Suspended},
		{step: "frozen", from: state.Started, to: state.Suspended},
		{step: "suspended written", from: state.Started, to: state.Suspended},
		{step: "thawed", from: state.Suspended, to: state.Started},
	} {
		t.Run(c.step, func(t *testing.T) {
			w := newPersistentWorld(t)
			const id = "1111111111dddd"
			w.store.put(record(id, counting))
			w.startManager(t)
			w.waitFor(t, id, state.Started)
			if c.from == state.Suspended {
				w.desire(t, id, state.Suspended)
				w.waitFor(t, id, state.Suspended)
			}
			p, err := w.manager.Process(id)
			if err != nil {
				t.Fatal(err)
			}
			w.stop()
			w.desire(t, id, c.to)
			w.agentThatDies(t, c.step)
			w.startManager(t)
			w.waitFor(t, id, c.to)
			if got := frozen(t, w.driver, id); got != (c.to == state.Suspended) {
				t.Errorf("frozen is %v in state %s", got, c.to)
			}
			if p.Phase() != machine.PhaseRunning {
				t.Errorf("the run is %s, expected the same to go on", p.Phase())
			}
			if c.to == state.Started {
				at := counted(t, w.driver, id)
				await.True(t, "it counts on", func() bool { return counted(t, w.driver, id) > at })
			}
			w.desire(t, id, state.Stopped)
			w.waitFor(t, id, state.Stopped)
		})
	}
}

// TestCreatedStays is a Machine that was made to be started later.
func TestCreatedStays(t *testing.T) {
	w := newPersistentWorld(t)
	const id, other = "1111111111eeee", "1111111111ffff"
	m := record(id, counting)
	m.Desired = state.Stopped
	w.store.put(m)
	w.startManager(t)
	// Another that comes and goes shows that the first was looked at.
	w.store.put(record(other, "exit 0"))
	w.waitFor(t, other, state.Stopped)
	if now, _ := w.store.get(id); now.State != state.Created {
		t.Errorf("state %s, expected created", now.State)
	}
	w.store.order(t, id, func(m *state.Machine) { m.Desired, m.InstanceID = state.Started, "second" })
	w.waitFor(t, id, state.Started)
	w.desire(t, id, state.Stopped)
	w.waitFor(t, id, state.Stopped)
}

// TestFreezeSaysSo asks the driver itself.
func TestFreezeSaysSo(t *testing.T) {
	d := newDriver(t)
	p := start(t, d, shell("frz", counting))
	for _, want := range []bool{false, true, false} {
		if err := map[bool]func(context.Context) error{true: p.Freeze, false: p.Thaw}[want](await.Context(t)); err != nil {
			t.Fatal(err)
		}
		if p.Frozen() != want || frozen(t, d, "frz") != want {
			t.Errorf("frozen is %v, expected %v", p.Frozen(), want)
		}
	}
}
