package state_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// TestEvents makes one change a row and looks at what is said to have happened.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	to := func(s state.MachineState) func(*state.Machine) { return func(m *state.Machine) { m.State = s } }
	want := func(s state.MachineState) func(*state.Machine) { return func(m *state.Machine) { m.Desired = s } }
	code := 3
	type row struct {
		from   func(*state.Machine) // nil: as created
		change func(*state.Machine)
		kinds  []string // the latest first
	}
	for name, r := range map[string]row{
		"nothing seen":       {nil, func(m *state.Machine) { m.Message = "x" }, nil},
		"on its way":         {nil, to(state.Starting), nil},
		"started":            {to(state.Starting), to(state.Started), []string{"start"}},
		"gone on":            {to(state.Suspended), to(state.Started), []string{"resume"}},
		"frozen":             {to(state.Suspending), to(state.Suspended), []string{"suspend"}},
		"stopping":           {to(state.Started), to(state.Stopping), nil},
		"ended":              {to(state.Started), to(state.Stopped), []string{"exit"}},
		"ended and failed":   {to(state.Stopped), to(state.Failed), nil},
		"never ran":          {to(state.Starting), to(state.Failed), []string{"exit"}},
		"started by policy":  {to(state.Stopped), func(m *state.Machine) { m.State, m.Restarts = state.Starting, 1 }, []string{"restart"}},
		"asked to stop":      {nil, want(state.Stopped), []string{"stop"}},
		"asked to suspend":   {nil, want(state.Suspended), []string{"suspend"}},
		"asked to go on":     {want(state.Suspended), want(state.Started), []string{"resume"}},
		"asked to be gone":   {nil, want(state.Destroyed), []string{"destroy"}},
		"asked to start":     {want(state.Stopped), func(m *state.Machine) { m.Desired, m.InstanceID = state.Started, "x" }, []string{"start"}},
		"asked to run again": {to(state.Stopped), func(m *state.Machine) { m.InstanceID = "x" }, []string{"start"}},
		"asked to restart":   {to(state.Started), func(m *state.Machine) { m.InstanceID = "x" }, []string{"restart"}},
		"updated":            {to(state.Started), func(m *state.Machine) { m.Config.MTU, m.InstanceID = 1300, "x" }, []string{"update"}},
		"cordoned":           {nil, func(m *state.Machine) { m.Cordoned = true }, []string{"cordon"}},
		"uncordoned":         {func(m *state.Machine) { m.Cordoned = true }, func(m *state.Machine) { m.Cordoned = false }, []string{"uncordon"}},
		"several at once": {to(state.Started), func(m *state.Machine) {
			m.Desired, m.Cordoned, m.State = state.Stopped, true, state.Stopped
		}, []string{"exit", "cordon", "stop"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := w.machine(t, "")
			if r.from != nil {
				m = w.set(t, m.ID, r.from)
			}
			after, _, err := w.ChangeMachine(within(t), m.ID, "", func(m *state.Machine) error { r.change(m); return nil })
			must(t, err)
			fresh := after.Events[:len(after.Events)-len(m.Events)]
			var kinds []string
			for _, e := range fresh {
				kinds = append(kinds, e.Type)
				if e.Source != "user" || e.Status != after.State || !e.Timestamp.Equal(after.UpdatedAt) || e.ID == "" {
					t.Errorf("the event is %+v of Machine %+v", e, after)
				}
			}
			if !slices.Equal(kinds, r.kinds) {
				t.Errorf("what happened is %q, want %q", kinds, r.kinds)
			}
		})
	}

	m := w.machine(t, "")
	if len(m.Events) != 1 || m.Events[0].Type != "launch" || m.Events[0].Source != "user" {
		t.Errorf("a new Machine has the events %+v", m.Events)
	}
	exit := func(change func(*state.Machine)) state.Event {
		m := w.machine(t, "")
		w.set(t, m.ID, func(m *state.Machine) { m.State = state.Started })
		w.set(t, m.ID, change)
		e := w.set(t, m.ID, func(m *state.Machine) { m.State, m.ExitCode = state.Stopped, &code }).Events[0]
		if e.Type != "exit" || e.Source != "flyd" || e.ExitCode == nil || *e.ExitCode != code {
			t.Errorf("the end of a run is %+v", e)
		}
		return e
	}
	if exit(func(m *state.Machine) { m.Message = "x" }).Requested {
		t.Error("an end that nobody asked for is said to be requested")
	}
	if !exit(func(m *state.Machine) { m.Desired = state.Stopped }).Requested {
		t.Error("the end by a stop is not said to be requested")
	}
	if !exit(func(m *state.Machine) { m.InstanceID, m.Pending = "x", "x" }).Requested {
		t.Error("the end by a restart is not said to be requested")
	}
}

func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machine(t, "web-1")
	for i := range state.MaxEvents + 3 {
		m = w.set(t, m.ID, func(m *state.Machine) { m.Cordoned = i%2 == 0 })
	}
	if len(m.Events) != state.MaxEvents || m.Events[0].Type != "cordon" || m.Events[state.MaxEvents-1].Type != "cordon" && m.Events[state.MaxEvents-1].Type != "uncordon" {
		t.Errorf("%d events are kept, want the latest %d", len(m.Events), state.MaxEvents)
	}
	var ids []string
	for i, e := range m.Events {
		ids = append(ids, e.ID)
		if i > 0 && e.Timestamp.After(m.Events[i-1].Timestamp) {
			t.Errorf("event %d is later than the one before it", i)
		}
	}
	distinct(t, "the id", ids)
}

func TestSuspendedMachines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.newMachine("later")
	n.SkipLaunch = true
	later, _, err := w.CreateMachine(within(t), n)
	must(t, err)
	if later.Desired != state.Stopped || later.State != state.Created {
		t.Errorf("a Machine made for later is %s, wanted %s", later.State, later.Desired)
	}
	for _, s := range []state.MachineState{state.Suspending, state.Suspended} {
		m := w.machine(t, "")
		w.set(t, m.ID, func(m *state.Machine) { m.Desired, m.State = state.Suspended, s })
		_, err := w.DestroyMachine(within(t), m.ID)
		refused(t, err, state.Conflict, "state")
	}
	n.Name, n.SkipLaunch, n.Config = "attached", false, state.MachineConfig{Attach: &state.Attach{Device: "tap0"}}
	attached, _, err := w.CreateMachine(within(t), n)
	must(t, err)
	for field, change := range map[string]func(*state.Machine){
		"config.attach":    func(m *state.Machine) { m.Config.Attach.Device = "tap1" },
		"config.init.exec": func(m *state.Machine) { m.Config.Init.Exec = []string{"true"} },
	} {
		_, _, err := w.ChangeMachine(within(t), attached.ID, "", func(m *state.Machine) error { change(m); return nil })
		refused(t, err, state.Invalid, field)
	}
	_, _, err = w.ChangeMachine(within(t), attached.ID, "", func(m *state.Machine) error { m.Desired = state.Suspended; return nil })
	refused(t, err, state.Conflict, "desired")
}

// TestWhatUpdatesMayNotChange is what only this room writes, and what a host may say.
func TestWhatUpdatesMayNotChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.machine(t, "web-1")
	_, _, err := w.AcquireLease(within(t), m.ID, state.LeaseRequest{})
	must(t, err)
	w.set(t, m.ID, func(m *state.Machine) { m.State = state.Started })
	status := state.CheckStatus{Name: "up", Service: -1, Status: state.CheckPassing}
	for name, row := range map[string]struct {
		field  string
		change func(*state.Machine)
	}{
		"lease":             {"", func(m *state.Machine) { m.Lease = nil }},
		"time of the lease": {"", func(m *state.Machine) { m.Lease.ExpiresAt = time.Now() }},
		"events":            {"", func(m *state.Machine) { m.Events = nil }},
		"status":            {"checks", func(m *state.Machine) { s := status; s.Status = "fine"; m.Checks = []state.CheckStatus{s} }},
		"output": {"checks", func(m *state.Machine) {
			s := status
			s.Output = string(make([]byte, state.MaxCheckOutput+1))
			m.Checks = []state.CheckStatus{s}
		}},
		"checks":  {"checks", func(m *state.Machine) { m.Checks = repeat(status, state.MaxChecks+1) }},
		"relayed": {"relayed", func(m *state.Machine) { m.Relayed = make([]uint16, state.MaxServices+1) }},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.UpdateMachine(within(t), m.ID, func(m *state.Machine) error { row.change(m); return nil })
			refused(t, err, state.Invalid, row.field)
		})
	}
	after := w.set(t, m.ID, func(m *state.Machine) {
		m.Checks, m.Relayed, m.Cordoned = []state.CheckStatus{status}, []uint16{8080}, true
	})
	if len(after.Checks) != 1 || len(after.Relayed) != 1 || !after.Cordoned {
		t.Errorf("the Machine is %+v", after)
	}
}
