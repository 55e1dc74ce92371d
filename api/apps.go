package api

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) ListApps(_ context.Context, r ListAppsRequestObject) (ListAppsResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	if slug := r.Params.OrgSlug; slug != "" {
		if _, err := o.org(snapshot, slug); err != nil {
			return nil, err
		}
	}
	list := AppList{Apps: []App{}}
	for _, name := range slices.Sorted(maps.Keys(snapshot.Apps)) {
		app := snapshot.Apps[name]
		if r.Params.OrgSlug == "" || r.Params.OrgSlug == app.Org {
			list.Apps = append(list.Apps, appOf(snapshot, app))
		}
	}
	list.TotalApps = len(list.Apps)
	return ListApps200JSONResponse(list), nil
}

func (o *operations) CreateApp(ctx context.Context, r CreateAppRequestObject) (CreateAppResponseObject, error) {
	name := r.Body.Name
	switch {
	case name == "":
		name = r.Body.AppName
	case r.Body.AppName != "" && r.Body.AppName != name:
		return nil, invalid("app_name", "app_name is %q and name is %q; they mean the same, give one of them", r.Body.AppName, name)
	}
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	app, revision, err := o.config.Store.CreateApp(ctx, name, r.Body.OrgSlug, r.Body.Network)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return CreateApp201JSONResponse{
		Body:    appOf(o.config.Store.Snapshot(), app),
		Headers: CreateApp201ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func (o *operations) GetApp(_ context.Context, r GetAppRequestObject) (GetAppResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	app, err := o.app(snapshot, r.AppName)
	if err != nil {
		return nil, err
	}
	return GetApp200JSONResponse(appOf(snapshot, app)), nil
}

func (o *operations) MoveApp(ctx context.Context, r MoveAppRequestObject) (MoveAppResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	app, err := o.app(o.config.Store.Snapshot(), r.AppName)
	if err != nil {
		return nil, err
	}
	if r.Body.OrgSlug == "" && r.Body.Network == "" {
		return nil, invalid("org_slug", "there is neither org_slug nor network, expected where the app shall move to")
	}
	app, revision, err := o.config.Store.MoveApp(ctx, r.AppName, cmp.Or(r.Body.OrgSlug, app.Org), r.Body.Network)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return MoveApp200JSONResponse{
		Body:    appOf(o.config.Store.Snapshot(), app),
		Headers: MoveApp200ResponseHeaders{SixpnRevision: revision},
	}, nil
}

func (o *operations) DestroyApp(ctx context.Context, r DestroyAppRequestObject) (DestroyAppResponseObject, error) {
	if err := checkWait(r.Params.Wait); err != nil {
		return nil, err
	}
	if _, err := o.app(o.config.Store.Snapshot(), r.AppName); err != nil {
		return nil, err
	}
	revision, err := o.config.Store.DestroyApp(ctx, r.AppName)
	if err != nil {
		return nil, err
	}
	if err := o.written(ctx, revision, r.Params.Wait); err != nil {
		return nil, err
	}
	return DestroyApp202JSONResponse{done(revision)}, nil
}

func appOf(snapshot *state.Snapshot, app state.App) App {
	machines := len(snapshot.AppMachines(app.Name))
	status := "pending"
	switch {
	case app.Destroying:
		status = "destroying"
	case machines > 0:
		status = "deployed"
	}
	return App{
		ID: app.Name, Name: app.Name, Network: snapshot.Networks[app.Network].Name,
		Status: status, MachineCount: machines,
		Organization: Organization{Slug: app.Org, Name: snapshot.Orgs[app.Org].Name},
		CreatedAt:    app.CreatedAt.Unix(),
	}
}
