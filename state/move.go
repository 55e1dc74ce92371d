package state

import (
	"context"

	"github.com/sixpn/sixpn"
)

// MoveApp moves an app to a network, of another org or of its own ("" is the default
// one), in one transaction: everything of it gets new addresses. A Machine that runs
// is stopping from that moment on, which takes it out of DNS and of all tables, and is
// started again with its new address; a suspended one is stopped. Flycast addresses of
// the old network are replaced one for one by new ones of the new network; one that
// the app had in the new network before, across networks, is now its own, and those of
// other networks stay. It is refused while a Machine is leased. An app that is there
// already is left as it is.
func (s *Store) MoveApp(ctx context.Context, app, org, network string) (App, int64, error) {
	var record Record[App]
	revision, err := s.transactHolding(ctx, s.Snapshot().AppMachines(app), "move app "+app, func(t *transaction) error {
		var err error
		if record, err = t.appRecord(app); err != nil {
			return err
		}
		if err := record.Value.mustStay(); err != nil {
			return err
		}
		if err := t.mustHaveOrg(org); err != nil {
			return err
		}
		before := record.Value
		record.Value.Org = org
		if record.Value.Network, err = t.networkNamed(org, network); err != nil {
			return err
		}
		if record.Value.Network == before.Network {
			return nil
		}
		if err := t.moveVIPs(before, record.Value); err != nil {
			return err
		}
		if err := t.moveMachines(before, record.Value); err != nil { // last: see latest
			return err
		}
		t.put(nameApp(app), hex8(record.Value.Network))
		t.remove(keyApp(before.Network, app))
		t.removeAll(keyAppDeleted(before.Network, app))
		return write(t, keyApp(record.Value.Network, app), record)
	})
	if err != nil {
		return App{}, 0, err
	}
	if revision == 0 {
		revision = record.ModRevision
	}
	return record.Value, revision, nil
}

func (t *transaction) moveMachines(from, to App) error {
	machines, err := t.appMachines(from)
	if err != nil {
		return err
	}
	number, err := t.numbers(counterMachines(to.Network), 1, len(machines))
	if err != nil {
		return err
	}
	at := now()
	for _, r := range machines {
		before := r.Value
		if before.Lease.HeldAt(at) {
			return leased(before)
		}
		t.remove(keyMachine(before.Network, before.ID))
		t.put(nameMachineID(before.ID), hex8(to.Network))
		r.Value.Network, r.Value.Number = to.Network, sixpn.Machine(number)
		number++
		restartMoved(&r.Value)
		if err := t.writeMachine(before, &r, sourceUser); err != nil {
			return err
		}
	}
	return nil
}

// restartMoved makes sure that no run of a Machine goes on with its old address, and
// that what stood still does so afterwards.
func restartMoved(m *Machine) {
	if m.ended() {
		return
	}
	m.Checks, m.Relayed = nil, nil
	// Whatever runs, or is about to, is of another instance than the record's.
	m.InstanceID, m.Restarts, m.Pending = NewInstanceID(), 0, ""
	switch m.Desired {
	case Started:
		m.Pending = m.InstanceID
	case Suspended:
		m.Desired = Stopped
	}
	switch m.State {
	case Starting, Started, Suspending, Suspended:
		m.State = Stopping
	}
}

// ended is a Machine without a run, of which none will come without a command: one
// that somebody stopped, or that ended and that its restart policy leaves alone.
func (m Machine) ended() bool {
	if m.State == Failed || m.State == Destroyed || m.State == Destroying {
		return true
	}
	if m.Desired != Started {
		return m.State == Stopped || m.State == Created
	}
	if m.State != Stopped || m.Pending != "" {
		return false
	}
	return !m.Again()
}

func (t *transaction) moveVIPs(from, to App) error {
	vips, err := t.appVIPs(from.Name)
	if err != nil {
		return err
	}
	own := vips[:0]
	for _, r := range vips {
		if r.Value.Network == from.Network {
			own = append(own, r)
		}
	}
	if len(own) == 0 {
		return nil
	}
	if err := t.mustHaveRoom(to.Network, len(own)); err != nil {
		return err
	}
	number, err := t.numbers(counterVIPs(to.Network), 1, len(own))
	if err != nil {
		return err
	}
	for _, r := range own {
		t.removeVIP(r.Value)
		r.Value.Network, r.Value.Number, r.Value.CreatedAt = to.Network, number, now()
		number++
		t.put(indexVIP(to.Name, r.Value.Addr()), r.Value.Request)
		if err := write(t, keyVIP(to.Network, r.Value.Number), r); err != nil {
			return err
		}
	}
	return nil
}
