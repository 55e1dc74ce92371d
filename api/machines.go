package api

import (
	"cmp"
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
	m, revision, err := o.config.Store.CreateMachine(ctx, state.NewMachine{
		ID: r.Body.ID, App: r.AppName, Name: r.Body.Name, Region: cmp.Or(r.Body.Region, o.config.Region),
		Host: o.config.Host, Config: config, SkipLaunch: r.Body.SkipLaunch,
	})
	if err != nil {
		return nil, err
	}
	machine := machineOf(m)
	if r.Body.LeaseTTL > 0 {
		if machine.Nonce, revision, err = o.lease(ctx, m.ID, "", r.Body.LeaseTTL); err != nil {
			return nil, err
		}
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateMachine200JSONResponse{
		Body: machine, Headers: CreateMachine200ResponseHeaders{SixpnRevision: revision},
	}, nil
}

// lease takes a lease along with another change.
func (s *Server) lease(ctx context.Context, id, nonce string, seconds int) (string, int64, error) {
	lease, revision, err := s.config.Store.AcquireLease(ctx, id, state.LeaseRequest{Nonce: nonce, TTL: time.Duration(seconds) * time.Second})
	return lease.Nonce, revision, err
}

func (o *operations) GetMachine(_ context.Context, r GetMachineRequestObject) (GetMachineResponseObject, error) {
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	return GetMachine200JSONResponse(machineOf(m)), nil
}

func (o *operations) UpdateMachine(ctx context.Context, r UpdateMachineRequestObject) (UpdateMachineResponseObject, error) {
	if err := checkLeaseTTL(r.Body.LeaseTTL); err != nil {
		return nil, err
	}
	config, err := configIn(r.Body.Config)
	if err != nil {
		return nil, err
	}
	nonce := r.Params.FlyMachineLeaseNonce
	m, revision, err := o.changed(ctx, target{r.AppName, r.MachineID, nonce, r.Params.Wait}, func(m *state.Machine) error {
		if err := checkUpdate(*r.Body, m); err != nil {
			return err
		}
		// The run of before is stopped as its own configuration says.
		how := m.Config.StopConfig
		m.Config = config
		if !r.Body.SkipLaunch {
			runAnew(m, how)
			return nil
		}
		m.InstanceID, m.Pending, m.Restarts = state.NewInstanceID(), "", 0
		m.Desired, m.Stop = state.Stopped, how
		leave(m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	machine := machineOf(m)
	if r.Body.LeaseTTL > 0 {
		if machine.Nonce, revision, err = o.lease(ctx, m.ID, nonce, r.Body.LeaseTTL); err != nil {
			return nil, err
		}
	}
	return UpdateMachine200JSONResponse{
		Body: machine, Headers: UpdateMachine200ResponseHeaders{SixpnRevision: revision},
	}, nil
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
