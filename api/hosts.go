package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/sixpn/sixpn/state"
)

// defaultInvitation is the life of an invitation that says none.
const defaultInvitation = time.Hour

func (o *operations) ListHosts(context.Context, ListHostsRequestObject) (ListHostsResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	list := HostList{Hosts: []Host{}}
	for _, h := range snapshot.Hosts {
		list.Hosts = append(list.Hosts, o.hostOf(snapshot, h))
	}
	slices.SortFunc(list.Hosts, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	return ListHosts200JSONResponse(list), nil
}

func (o *operations) GetHost(_ context.Context, r GetHostRequestObject) (GetHostResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	h, err := o.host(snapshot, r.HostName)
	if err != nil {
		return nil, err
	}
	return GetHost200JSONResponse(o.hostOf(snapshot, h)), nil
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
		return nil, refuse(http.StatusConflict, StatusConflict, "host_name", "%s is another host than the one that you ask, and only it has its key: ask its own agent", h.Name)
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

func (s *Server) hostOf(snapshot *state.Snapshot, h state.Host) Host {
	is := HostStatePresent
	switch {
	case !snapshot.Present(h.ID):
		is = HostStateLost
	case h.Draining:
		is = HostStateDraining
	}
	host := Host{
		ID: h.ID.String(), Name: h.Name, Region: h.Region, State: is, Draining: h.Draining, Endpoint: h.Endpoint, PublicKey: h.PublicKey,
		Machines: len(snapshot.HostMachines(h.ID)), Version: h.Version, ThisHost: h.ID == s.config.Host, CreatedAt: h.CreatedAt,
	}
	if trip, ok := s.config.RoundTrip(h.ID); ok {
		host.Loss = &trip.Loss
		if trip.Smoothed > 0 {
			took := float64(trip.Smoothed.Microseconds()) / 1000
			host.RoundTripMs = &took
		}
	}
	return host
}
