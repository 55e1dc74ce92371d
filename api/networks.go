package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

func (o *operations) ListNetworks(_ context.Context, r ListNetworksRequestObject) (ListNetworksResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	if _, err := o.org(snapshot, r.OrgSlug); err != nil {
		return nil, err
	}
	return ListNetworks200JSONResponse(NetworkList{Networks: networksOf(snapshot, r.OrgSlug)}), nil
}

func (o *operations) CreateNetwork(ctx context.Context, r CreateNetworkRequestObject) (CreateNetworkResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.org(o.config.Store.Snapshot(), r.OrgSlug); err != nil {
		return nil, err
	}
	network, revision, err := o.config.Store.CreateNetwork(ctx, r.OrgSlug, r.Body.Name)
	if err != nil {
		return nil, nameAtFault(err)
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateNetwork201JSONResponse{
		Body: networkOf(network), Headers: CreateNetwork201ResponseHeaders{SixpnRevision: revision},
	}, nil
}

// nameAtFault calls the member `name` what the store calls the network.
func nameAtFault(err error) error {
	var stored *state.Error
	if !errors.As(err, &stored) || stored.Field != "network" {
		return err
	}
	answer := fromState(stored)
	answer.Failure.Field, answer.Failure.Error = "name", "name: "+stored.Message
	if answer.Code == http.StatusConflict {
		answer.Failure.Status = StatusNameTaken
	}
	return answer
}

func (o *operations) DeleteNetwork(ctx context.Context, r DeleteNetworkRequestObject) (DeleteNetworkResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.org(o.config.Store.Snapshot(), r.OrgSlug); err != nil {
		return nil, err
	}
	revision, err := o.config.Store.DeleteNetwork(ctx, r.OrgSlug, r.Network)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return DeleteNetwork200JSONResponse{done(revision)}, nil
}

// network finds a network of an org by its name, "" for the default one.
func (s *Server) network(snapshot *state.Snapshot, org, name string) (state.Network, error) {
	if _, err := s.org(snapshot, org); err != nil {
		return state.Network{}, err
	}
	network, ok := snapshot.NetworkNamed(org, name)
	if !ok {
		return state.Network{}, notFound("network", "org %s has no network %q; list them with: sixpn networks list -o %s", org, name, org)
	}
	return network, nil
}

// networksOf is the networks of an org, by name.
func networksOf(snapshot *state.Snapshot, org string) []Network {
	networks := []Network{}
	for _, n := range snapshot.OrgNetworks(org) {
		networks = append(networks, networkOf(n))
	}
	slices.SortFunc(networks, func(a, b Network) int { return cmp.Compare(a.Name, b.Name) })
	return networks
}

func networkOf(n state.Network) Network {
	return Network{Name: n.Name, Prefix: sixpn.NetworkPrefix(n.ID).String(), CreatedAt: n.CreatedAt}
}
