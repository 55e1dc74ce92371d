package api

import (
	"context"
	"net/http"
	"time"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) CreateMachine(ctx context.Context, r CreateMachineRequestObject) (CreateMachineResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if err := checkLeaseTTL(r.Body.LeaseTTL); err != nil {
		return nil, err
	}
	config, err := configIn(r.Body.Config)
	if err != nil {
		return nil, err
	}
	if _, err := o.app(o.config.Store.Snapshot(), r.AppName); err != nil {
		return nil, err
	}
	n := state.NewMachine{ID: r.Body.ID, App: r.AppName, Name: r.Body.Name, Config: config, SkipLaunch: r.Body.SkipLaunch}
	if n.Host, n.Region, err = o.place(*r.Body); err != nil {
		return nil, err
	}
	if r.Body.LeaseTTL > 0 {
		n.Lease = &state.LeaseRequest{TTL: time.Duration(r.Body.LeaseTTL) * time.Second}
	}
	m, revision, err := o.config.Store.CreateMachine(ctx, n)
	if err != nil {
		return nil, err
	}
	machine := o.machineOf(m)
	if n.Lease != nil && m.Lease.HeldAt(time.Now()) {
		machine.Nonce = m.Lease.Nonce
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateMachine200JSONResponse{
		Body: machine, Headers: CreateMachine200ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func (o *operations) GetMachine(_ context.Context, r GetMachineRequestObject) (GetMachineResponseObject, error) {
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	return GetMachine200JSONResponse(o.machineOf(m)), nil
}

// GetMachineLive writes nothing, and reads what the Machine's record has not.
func (o *operations) GetMachineLive(ctx context.Context, r GetMachineLiveRequestObject) (GetMachineLiveResponseObject, error) {
	m, err := o.inside(ctx, r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	live, err := o.config.DataPlane.Live(ctx, m)
	if err != nil {
		return nil, err
	}
	return GetMachineLive200JSONResponse{
		HostName: o.hostName(o.config.Host), Port: live.Port, Drops: filled(live.Drops), Checks: filled(checksOf(live.Checks)), Limits: filled(live.Limits),
	}, nil
}

func (o *operations) UpdateMachine(ctx context.Context, r UpdateMachineRequestObject) (UpdateMachineResponseObject, error) {
	if err := checkLeaseTTL(r.Body.LeaseTTL); err != nil {
		return nil, err
	}
	config, err := configIn(r.Body.Config)
	if err != nil {
		return nil, err
	}
	t := target{r.AppName, r.MachineID, r.Params.FlyMachineLeaseNonce, r.Params.Wait}
	change := func(m *state.Machine) error { return update(m, *r.Body, config) }
	if r.Body.LeaseTTL > 0 {
		if t.nonce, err = o.leaseFor(ctx, t, r.Body.LeaseTTL, change); err != nil {
			return nil, err
		}
	}
	m, revision, err := o.changed(ctx, t, change)
	if err != nil {
		if r.Body.LeaseTTL > 0 && r.Params.FlyMachineLeaseNonce == "" {
			_, _ = o.config.Store.ReleaseLease(context.WithoutCancel(ctx), t.id, t.nonce) // else it expires
		}
		return nil, err
	}
	machine := o.machineOf(m)
	if r.Body.LeaseTTL > 0 {
		machine.Nonce = t.nonce
	}
	return UpdateMachine200JSONResponse{
		Body: machine, Headers: UpdateMachine200ResponseHeaders{SixpnRevision: revision},
	}, nil
}

// leaseFor takes the lease that a change asks for. That comes first, so that nobody
// can come in between; a change that would be refused is refused before.
func (s *Server) leaseFor(ctx context.Context, t target, seconds int, change func(*state.Machine) error) (string, error) {
	if err := checkWait(t.wait); err != nil {
		return "", err
	}
	m, err := s.machine(s.config.Store.Snapshot(), t.app, t.id)
	if err != nil {
		return "", err
	}
	if err := change(&m); err != nil {
		return "", err
	}
	if err := state.ValidateMachineConfig(m.Config); err != nil {
		return "", err
	}
	lease, _, err := s.config.Store.AcquireLease(ctx, t.id, state.LeaseRequest{Nonce: t.nonce, TTL: time.Duration(seconds) * time.Second})
	return lease.Nonce, err
}

// update replaces the configuration. The run of before is stopped as its own says.
func update(m *state.Machine, r UpdateMachineRequest, config state.MachineConfig) error {
	if err := checkUpdate(r, m); err != nil {
		return err
	}
	how := m.Config.StopConfig
	m.Config = config
	if !r.SkipLaunch {
		runAnew(m, how)
		return nil
	}
	m.InstanceID, m.Pending, m.Restarts = state.NewInstanceID(), "", 0
	m.Desired, m.Stop = state.Stopped, how
	leave(m)
	return nil
}

// checkUpdate compares what an update says of a Machine with what it is.
func checkUpdate(r UpdateMachineRequest, m *state.Machine) error {
	switch {
	case r.ID != "" && r.ID != m.ID:
		return invalid("id", "id is %q, expected the Machine's, %s", r.ID, m.ID)
	case r.Name != "" && r.Name != m.Name:
		return invalid("name", "name is %q, expected the Machine's, %s: it cannot be changed", r.Name, m.Name)
	case r.Region != "" && r.Region != m.Region:
		return invalid("region", "region is %q, expected the Machine's, %s: it cannot be changed", r.Region, m.Region)
	case m.Desired == state.Destroyed:
		return beingDestroyed(m)
	case r.CurrentVersion != "" && r.CurrentVersion != m.InstanceID:
		return refuse(http.StatusConflict, StatusConflict, "current_version",
			"current_version is %q, but the Machine's instance_id is %s: somebody changed it meanwhile; read it again", r.CurrentVersion, m.InstanceID)
	}
	return nil
}
