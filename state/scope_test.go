package state_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// concerning is what a partial snapshot of a host should have of a whole one, said in
// another way than the Store does.
func concerning(s *state.Snapshot, self sixpn.Host) state.Snapshot {
	home, whole, vips := map[sixpn.Network]bool{}, map[sixpn.Network]bool{}, map[sixpn.Network]bool{}
	apps := map[string]bool{}
	for _, m := range s.HostMachines(self) {
		home[m.Network], whole[m.Network], apps[m.App] = true, true, true
	}
	for _, v := range s.VIPs {
		if home[v.Network] {
			whole[s.Apps[v.App].Network] = true
		}
		if apps[v.App] {
			vips[v.Network] = true
		}
	}
	want := state.Snapshot{
		Networks: maps.Clone(s.Networks), Apps: maps.Clone(s.Apps), Machines: maps.Clone(s.Machines), VIPs: maps.Clone(s.VIPs), Hosts: s.Hosts,
	}
	maps.DeleteFunc(want.Networks, func(n sixpn.Network, _ state.Network) bool { return !whole[n] })
	maps.DeleteFunc(want.Apps, func(_ string, a state.App) bool { return !whole[a.Network] })
	maps.DeleteFunc(want.Machines, func(_ string, m state.Machine) bool { return !whole[m.Network] })
	for addr, v := range want.VIPs {
		if !whole[v.Network] && !vips[v.Network] {
			delete(want.VIPs, addr)
		}
	}
	return want
}

func sameConcerns(t *testing.T, what string, got *state.Snapshot, want state.Snapshot) {
	t.Helper()
	has := state.Snapshot{Networks: got.Networks, Apps: got.Apps, Machines: got.Machines, VIPs: got.VIPs, Hosts: got.Hosts}
	if diff := cmp.Diff(want, has, cmpopts.IgnoreUnexported(state.Snapshot{}), cmpopts.EquateEmpty(), cmpopts.EquateComparable(sixpn.VIPAddr(1, 1))); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
	for app := range want.Apps {
		var ids []string
		for id, m := range want.Machines {
			if m.App == app {
				ids = append(ids, id)
			}
		}
		var listed []string
		for _, m := range got.AppMachines(app) {
			listed = append(listed, m.ID)
		}
		slices.Sort(ids)
		if !slices.Equal(ids, listed) {
			t.Fatalf("%s: app %s has Machines %v, want %v", what, app, listed, ids)
		}
	}
}

// TestPartialStoresHaveWhatConcernsTheirHosts under random writes, by watch, read anew,
// and from disk.
func TestPartialStoresHaveWhatConcernsTheirHosts(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	writer := open(t, e)
	run(t, writer)
	ctx := within(t)
	var hosts []sixpn.Host
	for i := range 3 {
		h, _, err := writer.RegisterHost(ctx, fmt.Sprint("host-", i+1), "fra", 0)
		must(t, err)
		hosts = append(hosts, h.ID)
	}
	partial := func(h sixpn.Host, file string) *state.Store {
		s, err := state.OpenStore(within(t), state.StoreConfig{Client: e.Client(), Log: logTo(t), Host: h, Partial: true, File: file})
		must(t, err)
		return s
	}
	watching := map[sixpn.Host]*state.Store{}
	var stops []func()
	files := map[sixpn.Host]string{}
	for _, h := range hosts[:2] {
		files[h] = directory(t) + "/last.json"
		watching[h] = partial(h, files[h])
		stops = append(stops, runUntil(t, watching[h]))
	}
	orgs := []string{"a", "b", "c", "d"}
	var revision int64
	for _, org := range orgs {
		_, r, err := writer.CreateOrg(ctx, org, "")
		must(t, err)
		revision = r
	}
	wrote := func(r int64, err error) bool {
		if err == nil {
			revision = max(revision, r)
		}
		return err == nil // what cannot be is refused
	}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of []string) string { return of[random.IntN(len(of))] }
	apps := []string{"u", "v", "w", "x", "y", "z"}
	did := map[string]int{}
	for step := range 400 {
		s := writer.Snapshot()
		what, ok := "", false
		switch random.IntN(10) {
		case 0, 1:
			what = "an app"
			_, r, err := writer.CreateApp(ctx, pick(apps), pick(orgs), "")
			ok = wrote(r, err)
		case 2, 3, 4:
			what = "a Machine"
			_, r, err := writer.CreateMachine(ctx, state.NewMachine{App: pick(apps), Host: hosts[random.IntN(3)], Config: config()})
			ok = wrote(r, err)
		case 5, 6:
			what = "no Machine"
			if ids := slices.Sorted(maps.Keys(s.Machines)); len(ids) > 0 {
				ok = wrote(writer.DestroyMachine(ctx, pick(ids)))
			}
		case 7:
			what = "an address"
			_, r, err := writer.AllocateVIP(ctx, pick(apps), pick(append(orgs, "")), "")
			ok = wrote(r, err)
		case 8:
			what = "no address"
			if vips := s.AppVIPs(pick(apps)); len(vips) > 0 {
				ok = wrote(writer.ReleaseVIP(ctx, vips[0].App, vips[0].Addr()))
			}
		default:
			what = "a move"
			_, r, err := writer.MoveApp(ctx, pick(apps), pick(orgs), "")
			ok = wrote(r, err)
		}
		if ok {
			did[what]++
		}
		full := at(t, writer, revision)
		if full.Revision != revision {
			t.Fatalf("the whole one is at revision %d, want %d", full.Revision, revision)
		}
		for h, s := range watching {
			got, err := s.Reach(within(t), revision)
			must(t, err)
			if got.Revision > revision {
				t.Fatalf("revision %d, want at most %d", got.Revision, revision)
			}
			sameConcerns(t, fmt.Sprintf("step %d, %s, host %v by watch", step, what, h), got, concerning(full, h))
		}
		if step%20 == 0 {
			for _, h := range hosts {
				sameConcerns(t, fmt.Sprintf("step %d, %s, host %v read anew", step, what, h), partial(h, "").Snapshot(), concerning(full, h))
			}
		}
	}
	for _, what := range []string{"an app", "a Machine", "no Machine", "an address", "no address", "a move"} {
		if did[what] < 5 {
			t.Errorf("%q was done %d times only", what, did[what])
		}
	}
	for _, stop := range stops {
		stop()
	}
	full := at(t, writer, revision)
	for h, file := range files {
		s := partial(h, file)
		sameConcerns(t, "with a last state on disk", s.Snapshot(), concerning(full, h))
	}
}
