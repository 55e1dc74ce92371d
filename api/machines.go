package api

import (
	"cmp"
	"context"
	"strings"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) ListMachines(ctx context.Context, r ListMachinesRequestObject) (ListMachinesResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	if _, err := o.app(snapshot, r.AppName); err != nil {
		return nil, err
	}
	list := []Machine{}
	for _, m := range snapshot.AppMachines(r.AppName) {
		if (r.Params.Region == "" || r.Params.Region == m.Region) && hasMetadata(m, queryOf(ctx)) {
			list = append(list, machineOf(m))
		}
	}
	return ListMachines200JSONResponse(list), nil
}

// hasMetadata is whether a Machine fits all parameters metadata.KEY=VALUE.
func hasMetadata(m state.Machine, query map[string][]string) bool {
	for name, values := range query {
		key, ok := strings.CutPrefix(name, "metadata.")
		if !ok {
			continue
		}
		for _, value := range values {
			if found, ok := m.Config.Metadata[key]; !ok || found != value {
				return false
			}
		}
	}
	return true
}

func (o *operations) CreateMachine(ctx context.Context, r CreateMachineRequestObject) (CreateMachineResponseObject, error) {
	if r.Body.SkipLaunch {
		return nil, invalid("skip_launch", "skip_launch is true, expected false: a new Machine is started; stop it afterwards")
	}
	if err := checkWait(r.Params.Wait); err != nil {
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
		App: r.AppName, Name: r.Body.Name, Region: cmp.Or(r.Body.Region, o.config.Region),
		Host: o.config.Host, Config: config,
	})
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateMachine200JSONResponse{
		Body: machineOf(m), Headers: CreateMachine200ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func (o *operations) GetMachine(_ context.Context, r GetMachineRequestObject) (GetMachineResponseObject, error) {
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	return GetMachine200JSONResponse(machineOf(m)), nil
}

func machineOf(m state.Machine) Machine {
	return Machine{
		ID: m.ID, Name: m.Name, State: string(m.State), Region: m.Region,
		InstanceID: m.InstanceID, Version: m.InstanceID, PrivateIP: m.Addr().String(),
		CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt, Config: configOut(m.Config),
		Events: eventsOf(m), HostStatus: "ok", Message: m.Message, Restarts: m.Restarts,
	}
}

// eventsOf is what the record knows of a Machine's past: how its last run ended,
// if one did, and that it was made.
func eventsOf(m state.Machine) []MachineEvent {
	events := []MachineEvent{}
	if m.ExitCode != nil {
		events = append(events, MachineEvent{
			ID: m.ID + "-exit", Type: "exit", Status: string(m.State), Source: "flyd",
			Timestamp: m.UpdatedAt.UnixMilli(),
			Request: MachineEventRequest{ExitEvent: &ExitEvent{
				ExitCode: *m.ExitCode, ExitedAt: m.UpdatedAt, RequestedStop: m.Desired != state.Started,
			}},
		})
	}
	return append(events, MachineEvent{
		ID: m.ID + "-launch", Type: "launch", Status: string(state.Created), Source: "user",
		Timestamp: m.CreatedAt.UnixMilli(),
	})
}
