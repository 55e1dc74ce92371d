package api

import (
	"context"
	"net/http"
	"time"

	"github.com/sixpn/sixpn/state"
)

// atRest is a Machine without a run.
func atRest(s state.MachineState) bool {
	return s == state.Stopped || s == state.Failed
}

// idle is a Machine without a run, ended or not begun, and none on its way.
func idle(m state.Machine) bool {
	return atRest(m.State) || m.State == state.Created && m.Desired == state.Stopped
}

// ended is whether no run goes on and none will come without a command.
func ended(m state.Machine) bool {
	switch {
	case m.State == state.Failed || m.State == state.Destroyed:
		return true
	case m.State != state.Stopped || m.Desired == state.Started && m.Pending == m.InstanceID:
		return false
	case m.Desired != state.Started:
		return true
	}
	return !m.Again()
}

// follow calls visit with the Machine as each snapshot has it until visit says it
// is enough. exists is false once the record is gone, and it is the last call.
func (s *Server) follow(ctx context.Context, id string, visit func(m state.Machine, exists bool) (enough bool)) error {
	snapshot, err := s.config.Store.Wait(ctx, 0) // not Snapshot: see state.Whole
	if err != nil {
		return err
	}
	for {
		m, ok := snapshot.Machines[id]
		if visit(m, ok) || !ok {
			return nil
		}
		if snapshot, err = s.config.Store.Wait(ctx, snapshot.Revision); err != nil {
			return err
		}
	}
}

const (
	waitDefault = 60   // seconds
	waitLongest = 3600 // seconds
)

func (o *operations) WaitMachine(ctx context.Context, r WaitMachineRequestObject) (WaitMachineResponseObject, error) {
	wanted := r.Params.State
	if wanted == "" {
		wanted = WaitMachineParamsStateStarted
	}
	if !wanted.Valid() {
		return nil, invalid("state", "state is %q, expected a state such as started, stopped, destroyed or settled", string(wanted))
	}
	seconds := r.Params.Timeout
	if seconds == 0 && !queryOf(ctx).Has("timeout") {
		seconds = waitDefault
	}
	if seconds < 1 || seconds > waitLongest {
		return nil, invalid("timeout", "timeout is %d, expected 1 to %d seconds", seconds, waitLongest)
	}
	last, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	err = o.follow(limited, r.MachineID, func(m state.Machine, exists bool) bool {
		if !exists {
			m.State = state.Destroyed
		}
		last = m
		return reached(m, wanted, r.Params.InstanceID)
	})
	switch {
	case err == nil && reached(last, wanted, r.Params.InstanceID):
		return WaitMachine200JSONResponse(Reached{Ok: true, State: string(last.State), Version: last.InstanceID}), nil
	case err == nil:
		return nil, notReady("Machine %s was destroyed, it will never be %s", r.MachineID, wanted)
	case ctx.Err() == nil:
		if asked := r.Params.InstanceID; asked != "" && asked != last.InstanceID {
			return nil, refuse(http.StatusRequestTimeout, StatusDeadline, "instance_id",
				"Machine %s is %s as instance %s; instance %q was not %s within %d seconds", r.MachineID, last.State, last.InstanceID, asked, wanted, seconds)
		}
		return nil, refuse(http.StatusRequestTimeout, StatusDeadline, "",
			"Machine %s is %s, not %s, after %d seconds", r.MachineID, last.State, wanted, seconds)
	}
	return nil, err
}

// reached is whether a Machine is in a state by the run that is meant, any if
// instance is empty.
func reached(m state.Machine, wanted WaitMachineParamsState, instance string) bool {
	// The state is that of the run before as long as one is pending.
	pending := m.Pending != "" && m.Pending == m.InstanceID && m.Desired == state.Started
	switch {
	case instance == "":
	case instance == m.InstanceID:
		if pending && m.State != state.Destroyed {
			return false
		}
	default: // replaced by another
		over := wanted == WaitMachineParamsStateStopped || wanted == WaitMachineParamsStateSettled
		if over && (!pending || atRest(m.State)) {
			return true
		}
		return wanted == WaitMachineParamsStateDestroyed && m.State == state.Destroyed
	}
	if wanted == WaitMachineParamsStateSettled {
		return m.State == state.Started || m.State == state.Suspended && m.Desired == state.Suspended || ended(m)
	}
	return string(m.State) == string(wanted)
}
