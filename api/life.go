package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/state"
)

// change makes one durable change of a Machine's record.
func (s *Server) change(ctx context.Context, app, id string, wait WaitFor, change func(*state.Machine) error) (int64, error) {
	if err := checkWait(wait); err != nil {
		return 0, err
	}
	if _, err := s.machine(s.config.Store.Snapshot(), app, id); err != nil {
		return 0, err
	}
	_, revision, err := s.config.Store.UpdateMachine(ctx, id, change)
	if err != nil {
		return 0, err
	}
	return revision, s.written(ctx, revision, wait)
}

// StartMachine asks for a new run by a new instance id, which is what tells it
// from a Machine that has ended by itself and is to stay so.
func (o *operations) StartMachine(ctx context.Context, r StartMachineRequestObject) (StartMachineResponseObject, error) {
	var previous state.MachineState
	revision, err := o.change(ctx, r.AppName, r.MachineID, r.Params.Wait, func(m *state.Machine) error {
		previous = m.State
		if m.Desired == state.Destroyed {
			return notReady("Machine %s is being destroyed; create another with: sixpn machine run", m.ID)
		}
		if m.Desired == state.Started && !atRest(m.State) {
			return nil
		}
		m.Desired, m.InstanceID, m.Restarts, m.Stop = state.Started, state.NewInstanceID(), 0, state.StopConfig{}
		if atRest(m.State) {
			// Not "stopped" any more, so that whoever waits for the start sees the
			// next stop as one that came after it.
			m.State, m.Message = state.Starting, ""
		} else {
			m.Pending = m.InstanceID // it is still stopping
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return StartMachine200JSONResponse{
		Body:    Started{PreviousState: string(previous)},
		Headers: StartMachine200ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func (o *operations) StopMachine(ctx context.Context, r StopMachineRequestObject) (StopMachineResponseObject, error) {
	var how state.StopConfig
	if r.Body != nil {
		if r.Body.ID != "" && r.Body.ID != r.MachineID {
			return nil, invalid("id", "id is %q, expected the Machine's, %s", r.Body.ID, r.MachineID)
		}
		var err error
		if how, err = stopIn(r.Body.Signal, time.Duration(r.Body.Timeout)); err != nil {
			return nil, err
		}
	}
	revision, err := o.change(ctx, r.AppName, r.MachineID, r.Params.Wait, func(m *state.Machine) error {
		if m.Desired == state.Destroyed {
			return nil // which stops it too
		}
		m.Desired, m.Stop = state.Stopped, how
		return nil
	})
	if err != nil {
		return nil, err
	}
	return StopMachine200JSONResponse{done(revision)}, nil
}

func (o *operations) RestartMachine(ctx context.Context, r RestartMachineRequestObject) (RestartMachineResponseObject, error) {
	timeout, err := parseDuration(r.Params.Timeout)
	if err != nil {
		return nil, invalid("timeout", "timeout %v", err)
	}
	how, err := stopIn(r.Params.Signal, timeout)
	if err != nil {
		return nil, err
	}
	if r.Params.ForceStop {
		how = state.StopConfig{Signal: "SIGKILL"}
	}
	revision, err := o.change(ctx, r.AppName, r.MachineID, r.Params.Wait, func(m *state.Machine) error {
		if m.Desired == state.Destroyed {
			return notReady("Machine %s is being destroyed; create another with: sixpn machine run", m.ID)
		}
		m.Desired, m.InstanceID, m.Restarts, m.Stop = state.Started, state.NewInstanceID(), 0, how
		if atRest(m.State) {
			m.State, m.Message = state.Starting, ""
			return nil
		}
		// Both for whoever waits until it has started again: neither the run of
		// before nor its end is what they wait for.
		m.Pending = m.InstanceID
		if m.State == state.Started {
			m.State = state.Stopping
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return RestartMachine200JSONResponse{done(revision)}, nil
}

func (o *operations) DestroyMachine(ctx context.Context, r DestroyMachineRequestObject) (DestroyMachineResponseObject, error) {
	revision, err := o.change(ctx, r.AppName, r.MachineID, r.Params.Wait, func(m *state.Machine) error {
		if !r.Params.Force && !r.Params.Kill && !atRest(m.State) && m.Desired != state.Destroyed {
			return notReady("Machine %s is %s, expected stopped or failed; stop it first, or use force", m.ID, m.State)
		}
		m.Desired, m.Stop = state.Destroyed, state.StopConfig{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return DestroyMachine200JSONResponse{done(revision)}, nil
}

// stopIn is how a command asks for a stop. Signals may come without their SIG, and
// in small letters, as people type them.
func stopIn(signal string, timeout time.Duration) (state.StopConfig, error) {
	if signal != "" {
		name := "SIG" + strings.TrimPrefix(strings.ToUpper(signal), "SIG")
		if unix.SignalNum(name) == 0 {
			return state.StopConfig{}, invalid("signal", "signal is %q, expected a name such as SIGTERM or SIGINT", signal)
		}
		signal = name
	}
	if timeout > state.MaxStopTimeout {
		return state.StopConfig{}, invalid("timeout", "timeout is %v, expected 0 (the default) to %v", timeout, state.MaxStopTimeout)
	}
	return state.StopConfig{Signal: signal, Timeout: timeout}, nil
}

func done(revision int64) DoneJSONResponse {
	return DoneJSONResponse{Body: OK{Ok: true}, Headers: DoneResponseHeaders{SixpnRevision: revision}}
}

// atRest is a Machine without a run.
func atRest(s state.MachineState) bool {
	return s == state.Stopped || s == state.Failed
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
	switch m.Config.Restart.Policy {
	case "always":
		return false
	case "on-failure":
		return m.ExitCode != nil && *m.ExitCode == 0
	}
	return true
}

// follow calls visit with the Machine as each snapshot has it until visit says it
// is enough. exists is false once the record is gone, and it is the last call.
func (s *Server) follow(ctx context.Context, id string, visit func(m state.Machine, exists bool) (enough bool)) error {
	snapshot := s.config.Store.Snapshot()
	for {
		m, ok := snapshot.Machines[id]
		if visit(m, ok) || !ok {
			return nil
		}
		var err error
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
		return reached(m, wanted)
	})
	switch {
	case err == nil && reached(last, wanted):
		return WaitMachine200JSONResponse(Reached{Ok: true, State: string(last.State), Version: last.InstanceID}), nil
	case err == nil:
		return nil, notReady("Machine %s was destroyed, it will never be %s", r.MachineID, wanted)
	case ctx.Err() == nil:
		return nil, refuse(http.StatusRequestTimeout, StatusDeadline, "",
			"Machine %s is %s, not %s, after %d seconds", r.MachineID, last.State, wanted, seconds)
	}
	return nil, err
}

func reached(m state.Machine, wanted WaitMachineParamsState) bool {
	if wanted == WaitMachineParamsStateSettled {
		return m.State == state.Started || ended(m)
	}
	return string(m.State) == string(wanted)
}
