package state_test

import (
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// hosts is a fleet of two: the one of the world and another, both alive.
type hosts struct {
	clientWorld
	other state.Host
}

func newHosts(t *testing.T) hosts {
	t.Helper()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	h := hosts{clientWorld: clientWorld{populate(t, s), e.Client()}}
	other, _, err := s.JoinHost(within(t), newHost(2))
	must(t, err)
	h.other = other
	h.live(t, h.host.ID, true)
	h.live(t, h.other.ID, true)
	return h
}

// live gives a host its lease, or takes it.
func (h hosts) live(t *testing.T, id sixpn.Host, alive bool) {
	t.Helper()
	key := "/sixpn/v1/hosts/" + hex8(id) + "/alive"
	var err error
	if alive {
		_, err = h.client.Put(within(t), key, `{"session":"of a test"}`)
	} else {
		_, err = h.client.Delete(within(t), key)
	}
	must(t, err)
}

// started makes a Machine that runs on the first host.
func (h hosts) started(t *testing.T, name string) state.Machine {
	t.Helper()
	return h.set(t, h.machine(t, name).ID, func(m *state.Machine) {
		m.State, m.Relayed = state.Started, []uint16{8080}
		m.Checks = []state.CheckStatus{{Name: "up", Service: -1, Status: state.CheckPassing}}
	})
}

func (h hosts) stopped(t *testing.T, id string) {
	t.Helper()
	h.set(t, id, func(m *state.Machine) { m.State = state.Stopped })
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	before := h.started(t, "web-1")

	asked, revision, err := h.MigrateMachine(within(t), before.ID, "", h.other.ID)
	must(t, err)
	if !asked.Leaving() || asked.Arriving() || asked.Host != h.host.ID || asked.Addr() != before.Addr() || asked.State != state.Stopping ||
		asked.Desired != state.Started || asked.InstanceID == before.InstanceID || asked.Pending != asked.InstanceID || asked.Events[0].Type != "migrate" {
		t.Errorf("asked to migrate it is %+v", asked)
	}
	if got := at(t, h.Store, revision).Machines[before.ID]; !got.Leaving() {
		t.Errorf("the snapshot has %+v", got)
	}

	h.stopped(t, before.ID)
	handed, revision, err := h.HandOver(within(t), h.host.ID, before.ID)
	must(t, err)
	s := at(t, h.Store, revision)
	if !handed.Arriving() || handed.Leaving() || handed.Host != h.other.ID || handed.Number <= before.Number || handed.Region != h.other.Region ||
		handed.State != state.Starting || handed.Desired != state.Started || handed.InstanceID != asked.InstanceID || handed.Checks != nil || handed.Relayed != nil ||
		handed.ID != before.ID || handed.Name != before.Name || handed.Network != before.Network {
		t.Errorf("handed over it is %+v", handed)
	}
	if len(s.HostMachines(h.host.ID)) != 0 || len(s.HostMachines(h.other.ID)) != 1 || len(s.AppMachines("web")) != 1 {
		t.Errorf("the first host has %v, the other %v", s.HostMachines(h.host.ID), s.HostMachines(h.other.ID))
	}

	// The host that it left has nothing to say of it any more.
	_, _, err = h.UpdateOwnMachine(within(t), h.host.ID, before.ID, func(m *state.Machine) error { m.State = state.Started; return nil })
	refused(t, err, state.Conflict, "host")
	_, _, err = h.HandOver(within(t), h.host.ID, before.ID)
	refused(t, err, state.Conflict, "host")
	_, _, err = h.MigrateMachine(within(t), before.ID, "", h.host.ID)
	refused(t, err, state.Conflict, "host")

	here, _, err := h.UpdateOwnMachine(within(t), h.other.ID, before.ID, func(m *state.Machine) error { m.State, m.Pending = state.Started, ""; return nil })
	must(t, err)
	if here.Migration != nil || here.Arriving() {
		t.Errorf("started it is %+v", here)
	}
	// The place in the index follows: the first host may go, the other may not.
	_, err = h.RemoveHost(within(t), h.other.ID, false)
	refused(t, err, state.Conflict, "host")
	_, err = h.RemoveHost(within(t), h.host.ID, false)
	must(t, err)
}

// What stood still does so afterwards.
func TestMigrateAtRest(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	zero := 0
	for name, row := range map[string]struct {
		desired, state         state.MachineState
		wantDesired, wantState state.MachineState
	}{
		"never-started":   {state.Stopped, state.Created, state.Stopped, state.Created},
		"stopped":         {state.Stopped, state.Stopped, state.Stopped, state.Stopped},
		"ended-by-itself": {state.Started, state.Stopped, state.Stopped, state.Stopped},
		"failed":          {state.Started, state.Failed, state.Stopped, state.Failed},
		"suspended":       {state.Suspended, state.Suspended, state.Stopped, state.Stopped},
	} {
		id := h.machine(t, name).ID
		h.set(t, id, func(m *state.Machine) { m.Desired, m.State, m.ExitCode = row.desired, row.state, &zero })
		m, _, err := h.MigrateMachine(within(t), id, "", h.other.ID)
		must(t, err)
		if m.State == state.Stopping {
			h.stopped(t, id)
		}
		m, _, err = h.HandOver(within(t), h.host.ID, id)
		must(t, err)
		if m.Host != h.other.ID || m.Desired != row.wantDesired || m.State != row.wantState || m.Migration != nil {
			t.Errorf("%s: it is on host %v, wanted %s, and %s (%+v), expected on %v, %s and %s", name, m.Host, m.Desired, m.State, m.Migration, h.other.ID, row.wantDesired, row.wantState)
		}
	}
}

func TestMigrateRefusals(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	id := h.started(t, "web-1").ID
	attached := h.newMachine("attached")
	attached.Config = state.MachineConfig{Attach: &state.Attach{Device: "tap0"}}
	tap, _, err := h.CreateMachine(within(t), attached)
	must(t, err)
	doomed := h.set(t, h.machine(t, "doomed").ID, func(m *state.Machine) { m.Desired = state.Destroyed }).ID
	leased := h.machine(t, "leased").ID
	lease, _, err := h.AcquireLease(within(t), leased, state.LeaseRequest{})
	must(t, err)
	drained, _, err := h.JoinHost(within(t), newHost(3))
	must(t, err)
	h.live(t, drained.ID, true)
	_, err = h.SetDraining(within(t), drained.ID, true)
	must(t, err)
	lost, _, err := h.JoinHost(within(t), newHost(4))
	must(t, err)
	for name, row := range map[string]struct {
		id, nonce string
		to        sixpn.Host
		kind      state.ErrorKind
		field     string
	}{
		"no such Machine":           {"ffffffffffffff", "", h.other.ID, state.NotFound, "id"},
		"no such host":              {id, "", 99, state.NotFound, "host"},
		"a host that is drained":    {id, "", drained.ID, state.Conflict, "host"},
		"a host that is lost":       {id, "", lost.ID, state.Conflict, "host"},
		"one that is attached":      {tap.ID, "", h.other.ID, state.Conflict, "config.attach"},
		"one that is destroyed":     {doomed, "", h.other.ID, state.Conflict, "state"},
		"one that another leases":   {leased, "", h.other.ID, state.Conflict, "lease"},
		"a nonce of no lease":       {id, "nonsense", h.other.ID, state.Conflict, "lease"},
		"a nonce of another's, too": {leased, lease.Nonce + "x", h.other.ID, state.Conflict, "lease"},
	} {
		revision := h.Snapshot().Revision
		_, _, err := h.MigrateMachine(within(t), row.id, row.nonce, row.to)
		refused(t, err, row.kind, row.field)
		if err == nil {
			t.Errorf("%s: it was not refused", name)
		}
		if m := h.Snapshot().Machines[row.id]; m.Migration != nil {
			t.Errorf("%s: it was refused, and the Machine is %+v (revision %d before)", name, m, revision)
		}
	}
	_, _, err = h.MigrateMachine(within(t), leased, lease.Nonce, h.other.ID)
	must(t, err)
	h.live(t, h.host.ID, false)
	_, _, err = h.MigrateMachine(within(t), id, "", h.other.ID)
	refused(t, err, state.Conflict, "host")
}

// Between the request and the hand-over the other host may have gone: the Machine is
// its old host's to start again, with its old address.
func TestHandOverThatFails(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(h hosts) error{
		"it was removed": func(h hosts) error { _, err := h.RemoveHost(t.Context(), h.other.ID, false); return err },
		"it was drained": func(h hosts) error { _, err := h.SetDraining(t.Context(), h.other.ID, true); return err },
		"it was lost": func(h hosts) error {
			_, err := h.client.Delete(t.Context(), "/sixpn/v1/hosts/"+hex8(h.other.ID)+"/alive")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			before := h.started(t, "web-1")
			_, _, err := h.MigrateMachine(within(t), before.ID, "", h.other.ID)
			must(t, err)
			h.stopped(t, before.ID)
			must(t, meanwhile(h))
			m, _, err := h.HandOver(within(t), h.host.ID, before.ID)
			must(t, err)
			if m.Host != h.host.ID || m.Addr() != before.Addr() || m.Leaving() || m.Migration.Error == "" || m.Desired != state.Started || m.Pending != m.InstanceID {
				t.Errorf("the Machine is %+v (%+v)", m, m.Migration)
			}
		})
	}
}

// A way back, before and after it was handed over.
func TestMigrateBack(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	before := h.started(t, "web-1")
	_, _, err := h.MigrateMachine(within(t), before.ID, "", h.other.ID)
	must(t, err)
	m, _, err := h.MigrateMachine(within(t), before.ID, "", h.host.ID)
	must(t, err)
	if m.Migration != nil || m.Addr() != before.Addr() || m.Desired != state.Started || m.Pending == "" {
		t.Errorf("called back it is %+v", m)
	}
	_, _, err = h.HandOver(within(t), h.host.ID, before.ID)
	refused(t, err, state.Conflict, "host")

	_, _, err = h.MigrateMachine(within(t), before.ID, "", h.other.ID)
	must(t, err)
	h.stopped(t, before.ID)
	_, _, err = h.HandOver(within(t), h.host.ID, before.ID)
	must(t, err)
	_, err = h.SetDraining(within(t), h.host.ID, true) // which is why it was moved
	must(t, err)
	m, revision, err := h.HandBack(within(t), h.other.ID, before.ID, "no such file")
	must(t, err)
	if m.Host != h.host.ID || m.Number <= before.Number || m.Region != h.host.Region || m.State != state.Starting || m.Desired != state.Started ||
		m.Migration.Error != "no such file" || m.Leaving() || m.Arriving() {
		t.Errorf("handed back it is %+v (%+v)", m, m.Migration)
	}
	if s := at(t, h.Store, revision); len(s.HostMachines(h.other.ID)) != 0 || len(s.HostMachines(h.host.ID)) != 1 {
		t.Errorf("the first host has %v, the other %v", s.HostMachines(h.host.ID), s.HostMachines(h.other.ID))
	}
	_, _, err = h.HandBack(within(t), h.host.ID, before.ID, "again")
	refused(t, err, state.Conflict, "host")
}

func TestHandBackToALostHost(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	id := h.started(t, "web-1").ID
	_, _, err := h.MigrateMachine(within(t), id, "", h.other.ID)
	must(t, err)
	h.stopped(t, id)
	handed, _, err := h.HandOver(within(t), h.host.ID, id)
	must(t, err)
	h.live(t, h.host.ID, false)
	m, _, err := h.HandBack(within(t), h.other.ID, id, "no such file")
	must(t, err)
	if m.Host != h.other.ID || m.Addr() != handed.Addr() || m.Arriving() || m.Migration.Error == "" {
		t.Errorf("the Machine is %+v (%+v)", m, m.Migration)
	}
}
