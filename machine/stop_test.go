package machine_test

import (
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

func TestManagerStopTimeout(t *testing.T) {
	w := newWorld(t)
	m := record("s", "trap '' TERM; echo up; while :; do sleep 60; done")
	m.Config.StopConfig.Timeout = 20 * time.Millisecond
	w.store.put(m)
	w.waitFor(t, "s", state.Started)
	waitOutput(t, w.driver, "s", "up")
	w.store.order(t, "s", func(m *state.Machine) { m.Desired = state.Stopped })
	m = w.waitFor(t, "s", state.Stopped)
	if m.ExitCode == nil || *m.ExitCode != 137 {
		t.Errorf("exit code %v, expected 137", m.ExitCode)
	}
}

func TestManagerStopSignal(t *testing.T) {
	w := newWorld(t)
	m := record("s", "trap 'exit 9' INT; echo up; while :; do sleep 60 & wait; done")
	m.Config.StopConfig.Signal = "SIGINT"
	w.store.put(m)
	waitOutputOf(t, w, "s", "up")
	w.store.order(t, "s", func(m *state.Machine) { m.Desired = state.Stopped })
	m = w.waitFor(t, "s", state.Stopped)
	if m.ExitCode == nil || *m.ExitCode != 9 {
		t.Errorf("exit code %v, expected 9", m.ExitCode)
	}
}
