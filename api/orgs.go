package api

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

func (o *operations) ListOrgs(context.Context, ListOrgsRequestObject) (ListOrgsResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	list := OrgList{Organizations: []Org{}}
	for _, slug := range slices.Sorted(maps.Keys(snapshot.Orgs)) {
		list.Organizations = append(list.Organizations, orgOf(snapshot, snapshot.Orgs[slug]))
	}
	return ListOrgs200JSONResponse(list), nil
}

func (o *operations) CreateOrg(ctx context.Context, r CreateOrgRequestObject) (CreateOrgResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	org, revision, err := o.config.Store.CreateOrg(ctx, r.Body.Slug, cmp.Or(r.Body.Name, r.Body.Slug))
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateOrg201JSONResponse{
		Body:    orgOf(o.config.Store.Snapshot(), org),
		Headers: CreateOrg201ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func orgOf(snapshot *state.Snapshot, org state.Org) Org {
	networks := []Network{}
	for _, n := range snapshot.Networks {
		if n.Org == org.Slug {
			networks = append(networks, Network{Name: n.Name, Prefix: sixpn.NetworkPrefix(n.ID).String()})
		}
	}
	slices.SortFunc(networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return Org{ID: org.Slug, Slug: org.Slug, Name: org.Name, Networks: networks, CreatedAt: org.CreatedAt}
}
