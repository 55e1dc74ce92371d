package api

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) ListMachines(ctx context.Context, r ListMachinesRequestObject) (ListMachinesResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	if _, err := o.app(snapshot, r.AppName); err != nil {
		return nil, err
	}
	f, err := filterOf(ctx, r.Params.Region, r.Params.State)
	if err != nil {
		return nil, err
	}
	list := []Machine{}
	for _, m := range machinesOf(snapshot, r.AppName, r.Params.IncludeDeleted) {
		if f.fits(m) {
			list = append(list, o.listed(m, r.Params.Summary))
		}
	}
	return ListMachines200JSONResponse(list), nil
}

// How many Machines a page of a list has.
const (
	pageDefault = 200
	pageLargest = 1000
)

func (o *operations) ListOrgMachines(ctx context.Context, r ListOrgMachinesRequestObject) (ListOrgMachinesResponseObject, error) {
	snapshot := o.config.Store.Snapshot()
	if _, err := o.org(snapshot, r.OrgSlug); err != nil {
		return nil, err
	}
	f, err := filterOf(ctx, r.Params.Region, r.Params.State)
	if err != nil {
		return nil, err
	}
	limit := r.Params.Limit
	if limit == 0 && !queryOf(ctx).Has("limit") {
		limit = pageDefault
	}
	if limit < 1 || limit > pageLargest {
		return nil, invalid("limit", "limit is %d, expected 1 to %d", limit, pageLargest)
	}
	// A cursor is the id that the page before ended with: unlike a count it stays
	// right when Machines come and go.
	if c := r.Params.Cursor; c != "" && state.ValidateMachineID(c) != nil {
		return nil, invalid("cursor", "cursor is %q, expected next_cursor of the answer before", c)
	}
	var found []state.Machine
	for _, app := range snapshot.Apps {
		if app.Org != r.OrgSlug {
			continue
		}
		for _, m := range machinesOf(snapshot, app.Name, r.Params.IncludeDeleted) {
			if m.ID > r.Params.Cursor && f.fits(m) {
				found = append(found, m)
			}
		}
	}
	slices.SortFunc(found, func(a, b state.Machine) int { return cmp.Compare(a.ID, b.ID) })
	page := MachinePage{Machines: []Machine{}}
	for _, m := range found[:min(limit, len(found))] {
		page.Machines = append(page.Machines, o.listed(m, r.Params.Summary))
		page.LastMachineID = m.ID
	}
	if len(found) > limit {
		page.NextCursor = page.LastMachineID
	}
	return ListOrgMachines200JSONResponse(page), nil
}

// machinesOf is the Machines of an app, by id, with those destroyed lately if asked.
func machinesOf(snapshot *state.Snapshot, app string, deleted bool) []state.Machine {
	machines := snapshot.AppMachines(app)
	if deleted {
		machines = slices.Concat(machines, snapshot.Deleted(app))
		slices.SortFunc(machines, func(a, b state.Machine) int { return cmp.Compare(a.ID, b.ID) })
	}
	return machines
}

// filter is which Machines are listed.
type filter struct {
	region   string
	states   []string
	metadata map[string][]string // what each key must be
}

func filterOf(ctx context.Context, region, states string) (filter, error) {
	f := filter{region: region, metadata: map[string][]string{}}
	if states != "" {
		f.states = strings.Split(states, ",")
	}
	for _, s := range f.states {
		if err := state.ValidateMachineState(state.MachineState(s)); err != nil {
			return f, err
		}
	}
	for name, values := range queryOf(ctx) {
		if key, ok := strings.CutPrefix(name, "metadata."); ok {
			f.metadata[key] = values
		}
	}
	return f, nil
}

func (f filter) fits(m state.Machine) bool {
	if f.region != "" && f.region != m.Region || f.states != nil && !slices.Contains(f.states, string(m.State)) {
		return false
	}
	for key, values := range f.metadata {
		found, ok := m.Config.Metadata[key]
		if !ok || slices.ContainsFunc(values, func(v string) bool { return v != found }) {
			return false
		}
	}
	return true
}

// listed is a Machine in a list.
func (s *Server) listed(m state.Machine, summary bool) Machine {
	machine := s.machineOf(m)
	if summary {
		machine.Config, machine.Events, machine.Checks = MachineConfig{}, nil, nil
	}
	return machine
}
