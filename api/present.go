package api

import (
	"context"
	"strings"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// machineOf is a Machine as clients see it.
func (s *Server) machineOf(m state.Machine) Machine {
	snapshot := s.config.Store.Snapshot()
	machine := Machine{
		ID: m.ID, Name: m.Name, AppName: m.App, State: string(m.State), Region: m.Region, ImageRef: imageOf(m.Config.Image),
		InstanceID: m.InstanceID, Version: m.InstanceID, PrivateIP: m.Addr().String(),
		CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt, Config: configOut(m.Config),
		Events: eventsOf(m), Cordoned: m.CordonedAt(time.Now()), HostStatus: "ok", HostName: hostName(snapshot, m.Host),
		Message: m.Message, Restarts: m.Restarts, DesiredState: string(m.Desired),
	}
	if !snapshot.Present(m.Host) {
		machine.HostStatus = "unreachable"
	}
	if way := m.Migration; way != nil {
		machine.Migration = &Migration{From: hostName(snapshot, way.From), To: hostName(snapshot, way.To), Error: way.Error, AskedAt: way.At}
	}
	machine.Checks = checksOf(m.Checks)
	for _, port := range m.Relayed {
		machine.RelayedPorts = append(machine.RelayedPorts, int(port))
	}
	return machine
}

func checksOf(checks []state.CheckStatus) (shown []CheckStatus) {
	for _, c := range checks {
		shown = append(shown, CheckStatus{Name: c.Name, Status: c.Status, Output: c.Output, UpdatedAt: c.UpdatedAt})
	}
	return shown
}

// hostName is what people call a host; its number if it was removed.
func hostName(snapshot *state.Snapshot, id sixpn.Host) string {
	if host, ok := snapshot.Hosts[id]; ok {
		return host.Name
	}
	return id.String()
}

// imageOf takes a reference apart: [registry/]repository[:tag][@digest]. The first
// part is a registry if it looks like a host.
func imageOf(reference string) ImageRef {
	image := ImageRef{Labels: map[string]string{}}
	reference, image.Digest, _ = strings.Cut(reference, "@")
	if colon := strings.LastIndexByte(reference, ':'); colon > strings.LastIndexByte(reference, '/') {
		reference, image.Tag = reference[:colon], reference[colon+1:]
	}
	image.Repository = reference
	if first, rest, ok := strings.Cut(reference, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		image.Registry, image.Repository = first, rest
	}
	return image
}

func eventsOf(m state.Machine) []MachineEvent {
	events := []MachineEvent{}
	for _, e := range m.Events {
		event := MachineEvent{
			ID: e.ID, Type: e.Type, Status: string(e.Status), Source: e.Source, Timestamp: e.Timestamp.UnixMilli(),
		}
		if e.ExitCode != nil {
			event.Request.ExitEvent = &ExitEvent{ExitCode: *e.ExitCode, ExitedAt: e.Timestamp, RequestedStop: e.Requested}
		}
		events = append(events, event)
	}
	return events
}

func (o *operations) ListEvents(ctx context.Context, r ListEventsRequestObject) (ListEventsResponseObject, error) {
	limit := r.Params.Limit
	if limit == 0 && !queryOf(ctx).Has("limit") {
		limit = state.MaxEvents
	}
	if limit < 1 || limit > state.MaxEvents {
		return nil, invalid("limit", "limit is %d, expected 1 to %d", limit, state.MaxEvents)
	}
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	events := eventsOf(m)
	return ListEvents200JSONResponse(events[:min(limit, len(events))]), nil
}
