package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/state"
)

// checkHost looks at all that a killed agent left, once nothing was to be done.
func checkHost(ctx context.Context, t *testing.T, w *world, snapshot *state.Snapshot, orders []*operator) {
	t.Helper()
	for _, o := range orders {
		checkOrders(t, o, snapshot)
		checkDeleted(t, o, snapshot)
	}
	checkTables(ctx, t, w, snapshot)
	checkPlaces(t, w, snapshot)
}

// checkOrders demands that everything acknowledged is in the store.
func checkOrders(t *testing.T, o *operator, snapshot *state.Snapshot) {
	t.Helper()
	for _, app := range o.apps {
		record, ok := snapshot.Apps[app.name]
		switch network := snapshot.Networks[record.Network]; {
		case app.want == state.Destroyed && ok:
			t.Errorf("app %s was destroyed and is there: %+v", app.name, record)
		case app.want != state.Destroyed && !ok:
			t.Errorf("app %s was acknowledged and is not there", app.name)
		case ok && (network.Org != app.place.org || network.Name != app.place.network || record.Org != network.Org):
			t.Errorf("app %s is in %+v of %+v, but was acknowledged to be in %v", app.name, record, network, app.place)
		}
	}
	for _, v := range o.vips {
		record, ok := snapshot.VIPs[v.addr]
		switch {
		case !ok && !v.may(state.Destroyed):
			t.Errorf("address %s of app %s was acknowledged and is not there", v.addr, v.app)
		case ok && !v.may(state.Started):
			t.Errorf("address %s of app %s was released and is there", v.addr, v.app)
		case ok && record.App != v.app:
			t.Errorf("address %s is of app %s, expected %s", v.addr, record.App, v.app)
		}
	}
	for _, m := range o.machines {
		record, ok := snapshot.Machines[m.id]
		switch {
		case !ok && !m.may(state.Destroyed):
			t.Errorf("machine %s was acknowledged to be %s and is not there", m.id, m.want)
		case ok && !m.may(record.Desired):
			t.Errorf("machine %s is to be %s, but was acknowledged to be %s (perhaps %v)", m.id, record.Desired, m.want, m.perhaps)
		}
	}
}

// checkDeleted demands that what was destroyed is remembered, and not without bounds.
func checkDeleted(t *testing.T, o *operator, snapshot *state.Snapshot) {
	t.Helper()
	kept := map[string]bool{}
	for _, app := range o.apps {
		deleted := snapshot.Deleted(app.name)
		if len(deleted) > state.MaxDeleted {
			t.Errorf("app %s remembers %d machines, expected at most %d", app.name, len(deleted), state.MaxDeleted)
		}
		for _, m := range deleted {
			kept[m.ID] = true
			if m.State != state.Destroyed || snapshot.Machines[m.ID].ID != "" {
				t.Errorf("machine %s of app %s is remembered, but is %s", m.ID, app.name, m.State)
			}
		}
		for _, m := range o.machines {
			if m.app == app.name && !app.moved && app.want != state.Destroyed && m.want == state.Destroyed && !kept[m.id] {
				t.Errorf("machine %s of app %s was destroyed and is forgotten", m.id, app.name)
			}
		}
	}
}

// checkPlaces demands that on the host there is what belongs to a Machine that
// exists, or that runs, and nothing else.
func checkPlaces(t *testing.T, w *world, snapshot *state.Snapshot) {
	t.Helper()
	devices := append([]string{"lo", netns.HostDevice(w.Name)}, w.taps...)
	var ids, sockets, owners, all []string
	connected := running(snapshot)
	for _, id := range connected {
		attached := snapshot.Machines[id].Config.Attach
		if attached == nil {
			ids = append(ids, id)
			sockets = append(sockets, id+".sock")
		}
		if attached == nil || attached.Device == "" {
			devices = append(devices, machine.DeviceName(id))
		}
	}
	perhaps := map[string]bool{}
	for id, m := range snapshot.Machines {
		runs := slices.Contains(connected, id)
		if m.State == state.Created || m.Config.Attach != nil && !runs {
			continue // nothing of it was ever made, or it is all gone
		}
		if !runs && m.ExitCode == nil {
			// Stopped before it came to run: how far it had come, nobody knows.
			perhaps[id], perhaps[w.Name+"/"+id] = true, true
			continue
		}
		all = append(all, id)
		if m.Config.Attach == nil {
			owners = append(owners, w.Name+"/"+id)
		}
	}
	cgroups, supervisors := w.supervised(t, all)
	links := entries(t, filepath.Join(w.PinDir(), "links"))
	for _, row := range []struct {
		what       string
		have, want []string
	}{
		{"devices", nettest.Get[[]string](t)(w.Devices()), devices},
		{"machine directories", entries(t, filepath.Join(w.StateDir(), "machines")), all},
		{"supervisors' sockets", entries(t, filepath.Join(w.RunDir(), "machines", w.Name)), sockets},
		{"supervisors", supervisors, ids},
		{"cgroups", cgroups, ids},
		{"claims of ids", w.claims(t), owners},
		{"private namespaces", entries(t, filepath.Join(w.RunDir(), "netns")), []string{w.Name}},
	} {
		row.have = slices.DeleteFunc(row.have, func(s string) bool { return perhaps[s] })
		slices.Sort(row.have)
		slices.Sort(row.want)
		if diff := cmp.Diff(row.want, row.have); diff != "" {
			t.Errorf("%s, - as expected, + as they are:\n%s", row.what, diff)
		}
	}
	if len(links) != len(connected)+1 {
		t.Errorf("there are %d pinned links, expected one for each of %d machines and the host port: %q", len(links), len(connected), links)
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, entry := range nettest.Get[[]os.DirEntry](t)(os.ReadDir(dir)) {
		names = append(names, entry.Name())
	}
	return names
}

// claims are whose the claimed ranges of user ids are.
func (w *world) claims(t *testing.T) (owners []string) {
	t.Helper()
	dir := filepath.Join(w.RunDir(), "ids")
	for _, name := range entries(t, dir) {
		owners = append(owners, nettest.Get[string](t)(os.Readlink(filepath.Join(dir, name))))
	}
	return owners
}

// supervised finds the cgroups of this host's Machines, and the processes that stand
// beside them.
func (w *world) supervised(t *testing.T, ids []string) (cgroups, supervisors []string) {
	t.Helper()
	var parent string
	for _, id := range ids {
		content, err := os.ReadFile(filepath.Join(w.StateDir(), "machines", id, "record.json"))
		if os.IsNotExist(err) {
			continue // it never ran
		}
		nettest.Must(t, err)
		var record struct {
			Cgroup string `json:"cgroup"`
		}
		nettest.Must(t, json.Unmarshal(content, &record))
		parent = filepath.Dir(record.Cgroup)
	}
	for _, entry := range nettest.Get[[]os.DirEntry](t)(os.ReadDir(parent)) {
		if entry.IsDir() {
			cgroups = append(cgroups, entry.Name())
		}
	}
	for _, path := range nettest.Get[[]string](t)(filepath.Glob("/proc/[0-9]*/cmdline")) {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		for arg := range strings.SplitSeq(string(content), "\x00") {
			if id, ok := strings.CutPrefix(arg, filepath.Join(w.StateDir(), "machines")+"/"); ok {
				supervisors = append(supervisors, id)
			}
		}
	}
	return cgroups, supervisors
}
