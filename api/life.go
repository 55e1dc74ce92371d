package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/state"
)

// target is the Machine that a request is about, and what the request says of how
// it is to be changed.
type target struct {
	app, id string
	nonce   LeaseNonce
	wait    WaitFor
}

// change makes one durable change of a Machine's record.
func (s *Server) change(ctx context.Context, t target, change func(*state.Machine) error) (int64, error) {
	_, revision, err := s.changed(ctx, t, change)
	return revision, err
}

// changed is change with the record that it led to.
func (s *Server) changed(ctx context.Context, t target, change func(*state.Machine) error) (state.Machine, int64, error) {
	if err := checkWait(t.wait); err != nil {
		return state.Machine{}, 0, err
	}
	if _, err := s.machine(s.config.Store.Snapshot(), t.app, t.id); err != nil {
		return state.Machine{}, 0, err
	}
	m, revision, err := s.config.Store.ChangeMachine(ctx, t.id, t.nonce, change)
	if err != nil {
		return state.Machine{}, 0, err
	}
	return m, revision, s.written(ctx, revision, t.wait)
}

func beingDestroyed(m *state.Machine) error {
	return notReady("Machine %s is being destroyed; create another with: sixpn machine run", m.ID)
}

// runAnew asks for another run, by a new instance id, once the one that goes on, if
// any, has been stopped as how says.
func runAnew(m *state.Machine, how state.StopConfig) {
	rests := idle(*m) // as it was wanted until now
	m.Desired, m.InstanceID, m.Restarts, m.Stop = state.Started, state.NewInstanceID(), 0, how
	if rests {
		// Not "stopped" any more, so that whoever waits for the start sees the next
		// stop as one that came after it.
		m.State, m.Message = state.Starting, ""
		return
	}
	// Both for whoever waits until it has started again: neither the run of before
	// nor its end is what they wait for.
	m.Pending = m.InstanceID
	leave(m)
}

// leave takes a Machine that runs out of names and Flycast at once.
func leave(m *state.Machine) {
	switch m.State {
	case state.Started, state.Suspending, state.Suspended:
		m.State = state.Stopping
	}
}

// StartMachine asks for a new run by a new instance id, which is what tells it
// from a Machine that has ended by itself and is to stay so. A run that is
// suspended goes on as it is.
func (o *operations) StartMachine(ctx context.Context, r StartMachineRequestObject) (StartMachineResponseObject, error) {
	var previous state.MachineState
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	revision, err := o.change(ctx, t, func(m *state.Machine) error {
		previous = m.State
		switch {
		case m.Desired == state.Destroyed:
			return beingDestroyed(m)
		case m.Desired == state.Started && !atRest(m.State):
		case m.Desired == state.Suspended && !atRest(m.State):
			// Its state stays: it keeps the flows that it has, which one that starts
			// has not.
			m.Desired = state.Started
		case idle(*m):
			runAnew(m, state.StopConfig{})
		default: // it is still stopping, and goes on to do so as it was told
			runAnew(m, m.Stop)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return StartMachine200JSONResponse{
		Body:    Started{PreviousState: string(previous), Revision: revision},
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
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	revision, err := o.change(ctx, t, func(m *state.Machine) error {
		if m.Desired == state.Destroyed {
			return nil // which stops it too
		}
		m.Desired, m.Stop = state.Stopped, how
		if m.State == state.Created {
			m.State = state.Stopped // nobody else says so of one that never ran
		}
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
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	revision, err := o.change(ctx, t, func(m *state.Machine) error {
		if m.Desired == state.Destroyed {
			return beingDestroyed(m)
		}
		runAnew(m, how)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return RestartMachine200JSONResponse{done(revision)}, nil
}

func (o *operations) DestroyMachine(ctx context.Context, r DestroyMachineRequestObject) (DestroyMachineResponseObject, error) {
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	revision, err := o.change(ctx, t, func(m *state.Machine) error {
		if !r.Params.Force && !r.Params.Kill && !idle(*m) && m.Desired != state.Destroyed {
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

func (o *operations) SuspendMachine(ctx context.Context, r SuspendMachineRequestObject) (SuspendMachineResponseObject, error) {
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	revision, err := o.change(ctx, t, func(m *state.Machine) error {
		switch {
		case m.Desired == state.Destroyed:
			return beingDestroyed(m)
		case m.Desired == state.Suspended:
			return nil
		case m.Desired != state.Started || m.State != state.Started:
			return notReady("Machine %s is %s, expected started; start it with: sixpn machine start %s", m.ID, m.State, m.ID)
		}
		m.Desired = state.Suspended
		return nil
	})
	if err != nil {
		return nil, err
	}
	return SuspendMachine200JSONResponse{done(revision)}, nil
}

func (o *operations) CordonMachine(ctx context.Context, r CordonMachineRequestObject) (CordonMachineResponseObject, error) {
	nonce := ""
	if r.Params.WithLease {
		if nonce = r.Params.FlyMachineLeaseNonce; nonce == "" {
			return nil, invalid("with_lease", "with_lease is true, expected the nonce of the lease that the cordon shall end with, in the header %s", leaseHeader)
		}
	}
	revision, err := o.cordon(ctx, target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}, func(m *state.Machine) { m.Cordon(nonce) })
	if err != nil {
		return nil, err
	}
	return CordonMachine200JSONResponse{done(revision)}, nil
}

func (o *operations) UncordonMachine(ctx context.Context, r UncordonMachineRequestObject) (UncordonMachineResponseObject, error) {
	revision, err := o.cordon(ctx, target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}, (*state.Machine).Uncordon)
	if err != nil {
		return nil, err
	}
	return UncordonMachine200JSONResponse{done(revision)}, nil
}

func (s *Server) cordon(ctx context.Context, t target, how func(*state.Machine)) (int64, error) {
	return s.change(ctx, t, func(m *state.Machine) error {
		if m.Desired == state.Destroyed {
			return beingDestroyed(m)
		}
		how(m)
		return nil
	})
}

// SignalMachine writes nothing: what a signal leads to is seen when it happens.
func (o *operations) SignalMachine(ctx context.Context, r SignalMachineRequestObject) (SignalMachineResponseObject, error) {
	how, err := stopIn(r.Body.Signal, 0)
	if err != nil {
		return nil, err
	}
	if how.Signal == "" {
		return nil, invalid("signal", "signal is empty, expected a name such as SIGHUP")
	}
	m, err := o.started(ctx, r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	if nonce := r.Params.FlyMachineLeaseNonce; m.Lease.HeldAt(time.Now()) && nonce != m.Lease.Nonce {
		return nil, refuse(http.StatusConflict, StatusConflict, leaseHeader, "Machine %s is leased until %s: wait until then, or give the lease's nonce",
			m.ID, m.Lease.ExpiresAt.Format(time.RFC3339))
	}
	if err := o.config.Machines.Signal(ctx, m.ID, unix.SignalNum(how.Signal)); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, StatusFailedPrecondition, "", "%v", err)
	}
	return SignalMachine200JSONResponse(OK{Ok: true}), nil
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
	return DoneJSONResponse{Body: OK{Ok: true, Revision: revision}, Headers: DoneResponseHeaders{SixpnRevision: revision}}
}
