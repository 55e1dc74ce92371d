package state

import (
	"context"
	"reflect"
	"slices"
)

// UpdateMachine changes a Machine by change, which is called again when another
// write came in between, so it must only look at what it is given. What identifies
// a Machine cannot be changed: id, name, app, network, host, number, region, times,
// and neither can what this room keeps itself: its lease and its events.
// An error of change is returned as it is and nothing is written. If change changes
// nothing, nothing is written either; the revision is then that of the last write.
//
// It is for the Machine's host, which says what became of it: no lease holds it up.
func (s *Store) UpdateMachine(ctx context.Context, id string, change func(*Machine) error) (Machine, int64, error) {
	return s.updateMachine(ctx, id, sourceHost, func(_ *transaction, m *Machine) error { return change(m) })
}

// ChangeMachine is UpdateMachine for users: it is refused with kind Conflict while
// another holds a lease, and with a nonce that is not the one of a lease in force, so
// that whoever lost a lease notices it.
func (s *Store) ChangeMachine(ctx context.Context, id, nonce string, change func(*Machine) error) (Machine, int64, error) {
	return s.updateMachine(ctx, id, sourceUser, func(_ *transaction, m *Machine) error {
		if err := fence(*m, nonce, now()); err != nil {
			return err
		}
		return change(m)
	})
}

func (s *Store) updateMachine(ctx context.Context, id, source string, change func(*transaction, *Machine) error) (Machine, int64, error) {
	var record Record[Machine]
	revision, err := s.transact(ctx, id, "update machine "+id, func(t *transaction) error {
		var before Machine
		var err error
		if before, record, err = t.machineTwice(id); err != nil {
			return err
		}
		if err := change(t, &record.Value); err != nil {
			return err
		}
		forgetChecks(&record.Value)
		forgetCordon(&record.Value, now())
		arrive(&record.Value)
		if reflect.DeepEqual(before, record.Value) {
			return nil
		}
		if err := validateUpdate(before, record.Value); err != nil {
			return err
		}
		record.Value.UpdatedAt = now()
		record.Value.Events = eventsOf(before, record.Value, source)
		return write(t, keyMachine(record.Value.Network, id), record)
	})
	if err != nil {
		return Machine{}, 0, err
	}
	if revision == 0 {
		revision = record.ModRevision
	}
	return record.Value, revision, nil
}

// machineTwice reads a Machine for whoever changes it: before stays, though the change may
// write through the record's maps and slices.
func (t *transaction) machineTwice(id string) (before Machine, record Record[Machine], err error) {
	if record, err = t.machine(id); err != nil {
		return Machine{}, record, err
	}
	again, err := Decode[Machine](record.raw, record.ModRevision)
	return again.Value, record, err
}

// writeMachine writes a Machine that a larger transaction changes, under its network.
func (t *transaction) writeMachine(before Machine, r *Record[Machine], source string) error {
	if reflect.DeepEqual(before, r.Value) {
		return nil
	}
	r.Value.UpdatedAt = now()
	r.Value.Events = eventsOf(before, r.Value, source)
	return write(t, keyMachine(r.Value.Network, r.Value.ID), *r)
}

func validateUpdate(before, after Machine) error {
	fixed := after
	fixed.Desired, fixed.State, fixed.InstanceID, fixed.Config = before.Desired, before.State, before.InstanceID, before.Config
	fixed.ExitCode, fixed.Message, fixed.Restarts, fixed.Stop = before.ExitCode, before.Message, before.Restarts, before.Stop
	fixed.Pending, fixed.Cordoned, fixed.Checks, fixed.Relayed = before.Pending, before.Cordoned, before.Checks, before.Relayed
	fixed.Migration, fixed.CordonLease = before.Migration, before.CordonLease // see arrive
	if !reflect.DeepEqual(before, fixed) {
		return refuse(Invalid, "", "what identifies machine %s cannot be changed (id, name, app, network, host, number, region, times), nor its lease and events: create another Machine", before.ID)
	}
	if err := ValidateMachineState(after.State); err != nil {
		return err
	}
	if err := ValidateDesired(after.Desired); err != nil {
		return err
	}
	if after.Desired == Suspended && before.Desired != Suspended && after.Config.Attach != nil {
		return refuse(Conflict, "desired", "machine %s is only attached here, so nothing here can suspend it: detach it with `sixpn machine detach`", before.ID)
	}
	if err := validateSeen(before, after); err != nil {
		return err
	}
	// A configuration that stays may be of a newer release, whose rules allow more.
	if reflect.DeepEqual(before.Config, after.Config) {
		return nil
	}
	if !reflect.DeepEqual(before.Config.Attach, after.Config.Attach) {
		return refuse(Invalid, "config.attach", "what machine %s is attached to cannot be changed: detach it, then attach the other", before.ID)
	}
	return ValidateMachineConfig(after.Config)
}

// validateSeen checks what a host says of its Machine, as far as it is new.
func validateSeen(before, after Machine) error {
	if n := len(after.Relayed); n > MaxServices && n > len(before.Relayed) {
		return refuse(Invalid, "relayed", "%d ports are more than a Machine has services: expected at most %d", n, MaxServices)
	}
	if n := len(after.Checks); n > MaxChecks && n > len(before.Checks) {
		return refuse(Invalid, "checks", "%d checks are more than a Machine can have: expected at most %d", n, MaxChecks)
	}
	for _, c := range after.Checks {
		if slices.Contains(before.Checks, c) {
			continue
		}
		if !slices.Contains(checkStatuses, c.Status) {
			return refuse(Invalid, "checks", "%.40q is not the status of a check: expected one of %q", c.Status, checkStatuses)
		}
		if len(c.Output) > MaxCheckOutput {
			return refuse(Invalid, "checks", "the output of check %.80q is %d bytes long: expected at most %d", c.Name, len(c.Output), MaxCheckOutput)
		}
	}
	return nil
}

var checkStatuses = []string{CheckPassing, CheckWarning, CheckCritical}
