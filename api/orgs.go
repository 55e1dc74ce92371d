package api

import (
	"cmp"
	"context"
	"maps"
	"slices"

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

func (o *operations) GetOrg(_ context.Context, r GetOrgRequestObject) (GetOrgResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	org, err := o.org(snapshot, r.OrgSlug)
	if err != nil {
		return nil, err
	}
	return GetOrg200JSONResponse(orgOf(snapshot, org)), nil
}

func (o *operations) DeleteOrg(ctx context.Context, r DeleteOrgRequestObject) (DeleteOrgResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.org(o.config.Store.Snapshot(), r.OrgSlug); err != nil {
		return nil, err
	}
	revision, err := o.config.Store.DeleteOrg(ctx, r.OrgSlug)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return DeleteOrg200JSONResponse{done(revision)}, nil
}

// org finds an org by the slug in a path.
func (s *Server) org(snapshot *state.Snapshot, slug string) (state.Org, error) {
	org, ok := snapshot.Orgs[slug]
	if !ok {
		return state.Org{}, notFound("org_slug", "there is no org %q; list them with: sixpn orgs list", slug)
	}
	return org, nil
}

func orgOf(snapshot *state.Snapshot, org state.Org) Org {
	return Org{ID: org.Slug, Slug: org.Slug, Name: org.Name, Networks: networksOf(snapshot, org.Slug), CreatedAt: org.CreatedAt}
}
