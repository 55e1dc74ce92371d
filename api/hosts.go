package api

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/sixpn/sixpn/state"
)

// defaultInvitation is the life of an invitation that says none.
const defaultInvitation = time.Hour

func (o *operations) ListHosts(ctx context.Context, r ListHostsRequestObject) (ListHostsResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	hosts := slices.SortedFunc(maps.Values(snapshot.Hosts), func(a, b state.Host) int { return cmp.Compare(a.Name, b.Name) })
	return ListHosts200JSONResponse{Hosts: o.hostsOf(ctx, snapshot, hosts, r.Params.Ask)}, nil
}

func (o *operations) GetHost(ctx context.Context, r GetHostRequestObject) (GetHostResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	h, err := o.host(snapshot, r.HostName)
	if err != nil {
		return nil, err
	}
	return GetHost200JSONResponse(o.hostsOf(ctx, snapshot, []state.Host{h}, r.Params.Ask)[0]), nil
}

func (o *operations) ProbeHost(ctx context.Context, r ProbeHostRequestObject) (ProbeHostResponseObject, error) {
	h, err := o.host(o.config.Store.Snapshot(), r.HostName)
	if err != nil {
		return nil, err
	}
	if h.ID == o.config.Host {
		return nil, refuse(http.StatusConflict, StatusConflict, "host_name", "%s is the host that you ask: name another one", h.Name)
	}
	probe, err := o.config.Hosts.Probe(ctx, h)
	if err != nil {
		return nil, err
	}
	return ProbeHost200JSONResponse(probe), nil
}

func (o *operations) CreateInvitation(ctx context.Context, r CreateInvitationRequestObject) (CreateInvitationResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if o.config.Inviter == nil {
		return nil, notReady("other hosts do not reach this one: start its agent with --underlay ADDRESS")
	}
	invitation, revision, err := o.config.Inviter.Invite(ctx, r.Body.Region, cmp.Or(time.Duration(r.Body.ExpiresIn), defaultInvitation))
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateInvitation201JSONResponse{Body: invitation, Headers: CreateInvitation201ResponseHeaders{SixpnRevision: revision}}, nil
}

func (o *operations) DrainHost(ctx context.Context, r DrainHostRequestObject) (DrainHostResponseObject, error) {
	revision, err := o.drain(ctx, r.HostName, true, r.Params.Wait)
	if err != nil {
		return nil, err
	}
	return DrainHost200JSONResponse{done(revision)}, nil
}

func (o *operations) UndrainHost(ctx context.Context, r UndrainHostRequestObject) (UndrainHostResponseObject, error) {
	revision, err := o.drain(ctx, r.HostName, false, r.Params.Wait)
	if err != nil {
		return nil, err
	}
	return UndrainHost200JSONResponse{done(revision)}, nil
}

func (o *operations) drain(ctx context.Context, name string, draining bool, wait WaitFor) (int64, error) {
	if err := checkWait(wait); err != nil {
		return 0, err
	}
	h, err := o.host(o.config.Store.Snapshot(), name)
	if err != nil {
		return 0, err
	}
	revision, err := o.config.Store.SetDraining(ctx, h.ID, draining)
	if err != nil {
		return 0, err
	}
	return revision, o.written(ctx, revision, wait)
}

func (o *operations) RotateHostKey(ctx context.Context, r RotateHostKeyRequestObject) (RotateHostKeyResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	h, err := o.host(o.config.Store.Snapshot(), r.HostName)
	switch {
	case err != nil:
		return nil, err
	case h.ID != o.config.Host:
		return nil, &elsewhere{h.ID}
	case h.MeshMode() == state.MeshNative:
		return nil, notReady("the mesh of %s is native: nothing on it is encrypted, and there is no key", h.Name)
	case o.config.Keys == nil:
		return nil, notReady("other hosts do not reach this one, so it has no key of the mesh: start its agent with --underlay ADDRESS")
	}
	revision, err := o.config.Keys.RotateKey(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return RotateHostKey200JSONResponse{done(revision)}, nil
}

func (o *operations) RemoveHost(ctx context.Context, r RemoveHostRequestObject) (RemoveHostResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	h, err := o.host(o.config.Store.Snapshot(), r.HostName)
	if err != nil {
		return nil, err
	}
	if h.ID == o.config.Host {
		return nil, refuse(http.StatusConflict, StatusConflict, "host_name", "%s is the host that you ask: ask another one, and stop the agent of this one", h.Name)
	}
	revision, err := o.config.Store.RemoveHost(ctx, h.ID, r.Params.Force)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return RemoveHost200JSONResponse{done(revision)}, nil
}

// host finds a host by the name in a path.
func (s *Server) host(snapshot *state.Snapshot, name string) (state.Host, error) {
	h, ok := snapshot.HostNamed(name)
	if !ok {
		return state.Host{}, notFound("host_name", "there is no host %q; list them with: sixpn hosts list", name)
	}
	return h, nil
}

// hostsOf shows hosts, in their order.
func (s *Server) hostsOf(ctx context.Context, snapshot *state.Snapshot, hosts []state.Host, ask bool) []Host {
	shown := make([]Host, len(hosts))
	for i, seen := range s.config.Hosts.Seen(ctx, hosts, ask) {
		shown[i] = s.hostOf(snapshot, hosts[i])
		shown[i].add(seen)
		if ask {
			answers := seen.Err == nil
			shown[i].Answers = &answers
		}
	}
	return shown
}

func (s *Server) hostOf(snapshot *state.Snapshot, h state.Host) Host {
	is := HostStatePresent
	switch {
	case !snapshot.Present(h.ID):
		is = HostStateLost
	case h.Draining:
		is = HostStateDraining
	}
	return Host{
		ID: h.ID.String(), Name: h.Name, Region: h.Region, State: is, Draining: h.Draining, Endpoint: h.Endpoint, PublicKey: h.PublicKey,
		Machines: len(snapshot.HostMachines(h.ID)), Version: h.Version, ThisHost: h.ID == s.config.Host, CreatedAt: h.CreatedAt,
	}
}

// add is what its record does not say of a host.
func (h *Host) add(seen HostSeen) {
	if trip := seen.RoundTrip; trip.Probes > 0 {
		h.Loss = &trip.Loss
		if trip.Smoothed > 0 {
			took := milliseconds(trip.Smoothed)
			h.RoundTripMs = &took
		}
	}
	h.HandshakeAt, h.SeenAt, h.Store = seen.Handshake.UTC(), seen.Heard.UTC(), seen.Store
	if seen.Err != nil {
		h.Error = seen.Err.Error()
	}
	if r := seen.Report; r != nil {
		h.Version, h.Mesh, h.MeshXdp, h.Message = cmp.Or(r.Version, h.Version), r.Mesh, HostMeshXdp(r.XDP), r.Trouble
		h.WantedRevision, h.AppliedRevision = r.Wanted, r.Applied
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// unseen is for a server that knows no more of hosts than their records.
type unseen struct{}

func (unseen) Seen(_ context.Context, hosts []state.Host, _ bool) []HostSeen {
	return make([]HostSeen, len(hosts))
}

func (unseen) Probe(context.Context, state.Host) (HostProbe, error) {
	return HostProbe{}, notReady("other hosts do not reach this one: start its agent with --underlay ADDRESS")
}
