package machine_test

import (
	"strings"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/state"
)

// TestAttachSurvivesAgents ends the agent between any two steps.
func TestAttachSurvivesAgents(t *testing.T) {
	for _, c := range []struct {
		step  string
		order func(*state.Machine)
		want  state.MachineState
	}{
		{"starting written", nil, state.Started},
		{"attachment written", nil, state.Started},
		{"device made", nil, state.Started},
		{"port added", nil, state.Started},
		{"started written", nil, state.Started},
		{"stopping written", func(m *state.Machine) { m.Desired = state.Stopped }, state.Stopped},
		{"port removed", func(m *state.Machine) { m.Desired = state.Stopped }, state.Stopped},
		{"port removed", func(m *state.Machine) { m.InstanceID, m.Number = "moved", 0xb }, state.Started},
	} {
		t.Run(c.step+" "+string(c.want), func(t *testing.T) {
			w := newPersistentWorld(t)
			const id = "222222222222ee"
			foreign := newContainer(t)
			before := foreign.network()
			w.store.put(attachedRecord(id, state.Attach{Pid: foreign.Process.Pid}))
			if c.order != nil {
				w.startManager(t)
				w.waitFor(t, id, state.Started)
				w.stop()
				w.store.order(t, id, c.order)
			}
			w.agentThatDies(t, c.step)
			w.startManager(t)
			w.waitFor(t, id, c.want)
			if got := foreign.network(); c.want == state.Stopped && got != before {
				t.Errorf("it left %q, before it was %q", got, before)
			}
			m, _ := w.store.get(id)
			if got := foreign.network(); c.want == state.Started && strings.Count(got, m.Addr().String()+"/112") != 1 {
				t.Errorf("the namespace has %q, expected %s once", got, m.Addr())
			}
			w.desire(t, id, state.Destroyed)
			w.waitGone(t, id)
			if got := foreign.network(); got != before {
				t.Errorf("it left %q, before it was %q", got, before)
			}
		})
	}
}

// TestMachineChangesItsKind: another configuration makes a process of what was
// attached, and the other way round.
func TestMachineChangesItsKind(t *testing.T) {
	w := newWorld(t)
	const id = "222222222222ff"
	c := newContainer(t)
	before := c.network()
	w.store.put(attachedRecord(id, state.Attach{Pid: c.Process.Pid}))
	w.waitFor(t, id, state.Started)
	process := record(id, forever)
	w.store.order(t, id, func(m *state.Machine) { m.Config, m.InstanceID = process.Config, "second" })
	w.process(t, id)
	waitOutput(t, w.driver, id, "up")
	if got := c.network(); got != before {
		t.Errorf("it left %q, before it was %q", got, before)
	}
	w.waitFor(t, id, state.Started)
	w.store.order(t, id, func(m *state.Machine) {
		m.Config, m.InstanceID = attachedRecord(id, state.Attach{Pid: c.Process.Pid}).Config, "third"
	})
	await.True(t, "it is attached", func() bool {
		m, _ := w.store.get(id)
		return m.State == state.Started && strings.Contains(c.network(), guestAddr)
	})
	if _, err := w.manager.Process(id); err == nil {
		t.Error("its process runs")
	}
}
