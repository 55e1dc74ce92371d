package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// breach is something that must never be so.
type breach struct{ error }

func (b breach) Unwrap() error { return b.error }

func broken(format string, args ...any) error { return breach{fmt.Errorf(format, args...)} }

// retry repeats what only reads, or can be repeated, until an agent has answered.
func (o *operator) retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		var found breach
		var answered *api.Error
		if err == nil || ctx.Err() != nil || errors.As(err, &found) || errors.As(err, &answered) {
			return err
		}
		if err := o.await(ctx); err != nil {
			return err
		}
	}
}

// verify compares what was acknowledged with what the agent says, and finds out what
// became of orders without an answer.
func (o *operator) verify(ctx context.Context) error {
	for _, app := range o.apps {
		if app.gone {
			continue
		}
		if err := o.retry(ctx, func() error { return o.verifyApp(ctx, app) }); err != nil {
			return err
		}
		if app.gone {
			continue
		}
		err := o.retry(ctx, func() error { return o.verifyMachines(ctx, app) })
		if err == nil {
			err = o.retry(ctx, func() error { return o.verifyVIPs(ctx, app) })
		}
		if isMissing(err) && app.may(state.Destroyed) {
			err = nil // meanwhile
		}
		if err != nil {
			return err
		}
	}
	return o.retry(ctx, func() error { return o.verifyNetworks(ctx) })
}

func isMissing(err error) bool {
	var answered *api.Error
	return errors.As(err, &answered) && answered.Code == 404
}

func (o *operator) verifyApp(ctx context.Context, app *appFact) error {
	answer, err := o.world.Client.GetAppWithResponse(ctx, app.name)
	err = api.Check(answer, err)
	switch {
	case isMissing(err) && app.may(state.Destroyed):
		app.certain(state.Destroyed)
		app.gone = true
		o.each(app, func(f *fact, _ *machineFact) { f.certain(state.Destroyed) })
		for _, m := range o.machines {
			m.gone = m.gone || m.app == app.name
		}
		return nil
	case isMissing(err):
		return broken("app %s was acknowledged and is not there", app.name)
	case err != nil:
		return err
	}
	is := state.Started
	if answer.JSON200.Status == "destroying" {
		is = state.Destroyed
	}
	if !app.may(is) {
		return broken("app %s is %s, but was acknowledged to be %s", app.name, answer.JSON200.Status, app.want)
	}
	app.certain(is)
	switch at := (place{answer.JSON200.Organization.Slug, answer.JSON200.Network}); {
	case app.toward != nil && at == *app.toward:
		return o.arrived(ctx, app)
	case at != app.place:
		return broken("app %s is in %v, but was acknowledged to be in %v", app.name, at, app.place)
	}
	app.toward = nil
	return nil
}

func (o *operator) verifyMachines(ctx context.Context, app *appFact) error {
	answer, err := o.world.Client.ListMachinesWithResponse(ctx, app.name, &api.ListMachinesParams{})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	there := map[string]api.Machine{}
	for _, m := range *answer.JSON200 {
		there[m.ID] = m
	}
	for _, m := range o.machines {
		if m.app != app.name || m.gone {
			continue
		}
		record, ok := there[m.id]
		delete(there, m.id)
		if !ok {
			if !m.may(state.Destroyed) {
				return broken("machine %s was acknowledged to be %s and is not there", m.id, m.want)
			}
			m.certain(state.Destroyed)
			m.gone = true
			continue
		}
		if err := o.verifyMachine(ctx, m, record); err != nil {
			return err
		}
	}
	for id := range there {
		return broken("nobody asked for machine %s of app %s", id, app.name)
	}
	return nil
}

func (o *operator) verifyMachine(ctx context.Context, m *machineFact, record api.Machine) error {
	is := state.MachineState(record.DesiredState)
	if !m.may(is) {
		return broken("machine %s is to be %s, but was acknowledged to be %s (perhaps %v): %+v", m.id, is, m.want, m.fact.perhaps, record)
	}
	m.certain(is)
	step, err := strconv.Atoi(record.Config.Metadata["step"])
	if err != nil || step != m.step && !m.unsure[step] {
		return broken("machine %s has the configuration of order %q, but that of %d was acknowledged (perhaps %v)", m.id, record.Config.Metadata["step"], m.step, m.unsure)
	}
	m.step, m.unsure = step, nil
	if record.Cordoned != m.cordon && !m.either {
		return broken("machine %s is cordoned: %v, but was acknowledged to be %v", m.id, record.Cordoned, m.cordon)
	}
	m.cordon, m.either = record.Cordoned, false
	addr, err := netip.ParseAddr(record.PrivateIP)
	if err != nil {
		return broken("machine %s: %w", m.id, err)
	}
	if m.addr.IsValid() && m.addr != addr {
		return broken("machine %s has the address %s, expected %s", m.id, addr, m.addr)
	}
	m.addr = addr
	o.world.know(m)
	if err := m.follows(record.Events); err != nil {
		return err
	}
	if record.State == string(state.Suspended) && is == state.Suspended {
		if err := o.world.frozen(m.id); err != nil {
			return err
		}
	}
	return o.leaseIsThere(ctx, m)
}

// follows demands that a Machine's events go on where they were: newest first, each
// once, none of those seen before lost unless it is too old.
func (m *machineFact) follows(events []api.MachineEvent) error {
	seen := map[string]bool{}
	for i, e := range events {
		if seen[e.ID] || i > 0 && e.Timestamp > events[i-1].Timestamp {
			return broken("the events of machine %s are out of order: %+v", m.id, events)
		}
		seen[e.ID] = true
	}
	if len(events) == 0 || len(events) > state.MaxEvents {
		return broken("machine %s has %d events, expected 1 to %d", m.id, len(events), state.MaxEvents)
	}
	if len(m.events) > 0 {
		first := 0
		for first < len(events) && events[first].ID != m.events[0].ID {
			first++
		}
		for i, e := range events[first:] {
			if i >= len(m.events) || e.ID != m.events[i].ID {
				return broken("the events of machine %s were %+v and are %+v", m.id, m.events, events)
			}
		}
		if lost := len(m.events) - (len(events) - first); lost > 0 && len(events) < state.MaxEvents-2 {
			return broken("the events of machine %s lost %d of %+v and are %+v", m.id, lost, m.events, events)
		}
	}
	m.events = events
	return nil
}

// frozen demands that every process of a Machine stands still.
func (w *world) frozen(id string) error {
	content, err := os.ReadFile(filepath.Join(w.StateDir(), "machines", id, "record.json"))
	if err != nil {
		return broken("a suspended machine: %w", err)
	}
	var record struct {
		Cgroup string `json:"cgroup"`
	}
	if err := json.Unmarshal(content, &record); err != nil {
		return broken("a suspended machine: %w", err)
	}
	events, err := os.ReadFile(filepath.Join(record.Cgroup, "payload", "cgroup.events"))
	if err != nil {
		return broken("a suspended machine: %w", err)
	}
	if !strings.Contains(string(events), "frozen 1") || !strings.Contains(string(events), "populated 1") {
		return broken("machine %s is suspended, but its processes are %q", id, events)
	}
	w.stills.Add(1)
	return nil
}

func (o *operator) verifyVIPs(ctx context.Context, app *appFact) error {
	answer, err := o.world.Client.ListIPAssignmentsWithResponse(ctx, app.name)
	if err := api.Check(answer, err); err != nil {
		return err
	}
	there := map[string]bool{}
	for _, ip := range answer.JSON200.Ips {
		there[ip.IP] = true
	}
	for _, v := range o.vips {
		if v.app != app.name {
			continue
		}
		is := state.Destroyed
		if there[v.addr.String()] {
			is = state.Started
		}
		if !v.may(is) {
			return broken("address %s of app %s is %s, but was acknowledged to be %s", v.addr, v.app, is, v.want)
		}
		v.certain(is)
		delete(there, v.addr.String())
	}
	for ip := range there {
		return broken("nobody asked for address %s of app %s", ip, app.name)
	}
	return nil
}

func (o *operator) verifyNetworks(ctx context.Context) error {
	answer, err := o.world.Client.ListNetworksWithResponse(ctx, o.org())
	if err := api.Check(answer, err); err != nil {
		return err
	}
	there := map[string]bool{}
	for _, n := range answer.JSON200.Networks {
		there[n.Name] = true
	}
	for _, n := range o.networks {
		is := state.Destroyed
		if there[n.name] {
			is = state.Started
		}
		if !n.may(is) {
			return broken("network %s is %s, but was acknowledged to be %s", n.name, is, n.want)
		}
		n.certain(is)
	}
	return nil
}
