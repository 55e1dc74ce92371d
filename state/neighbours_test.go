package state_test

import (
	"fmt"
	"regexp"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// everything is what the store holds, by key.
func everything(t *testing.T, client *clientv3.Client) map[string]string {
	t.Helper()
	all := map[string]string{}
	r, err := client.Get(within(t), "", clientv3.WithPrefix())
	must(t, err)
	for _, kv := range r.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all
}

// TestRemovalsSpareTheNeighbours: names and numbers that begin alike are those of others.
// Each row removes something that has neighbours and says which keys may go with it.
func TestRemovalsSpareTheNeighbours(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	s := open(t, e)
	run(t, s)
	ctx := within(t)
	var revision int64
	for _, org := range []string{"acme", "acme2", "acme-2", "a"} {
		_, _, err := s.CreateOrg(ctx, org, "")
		must(t, err)
	}
	// Networks 1 and 0x10…0x1f, hosts 3 and 0x30…: numbers that begin alike.
	for i := range 30 {
		_, _, err := s.CreateNetwork(ctx, "acme", fmt.Sprintf("n%d", i))
		must(t, err)
	}
	var hosts []sixpn.Host
	for i := range 0x32 {
		h, _, err := s.JoinHost(ctx, state.NewHost{Name: fmt.Sprintf("host-%d", i), Region: "fra", Token: fmt.Sprint(i)})
		must(t, err)
		keepAlive(t, e.Client(), h.ID)
		hosts = append(hosts, h.ID)
	}
	machine := func(app, name string, host sixpn.Host, id string) {
		m, r, err := s.CreateMachine(ctx, state.NewMachine{App: app, Name: name, Host: host, Config: config(), ID: id})
		must(t, err)
		revision = r
		if name == "gone" {
			revision, err = s.DestroyMachine(ctx, m.ID)
			must(t, err)
		}
	}
	for app, of := range map[string]struct{ org, network string }{
		"web": {"acme", ""}, "web2": {"acme", ""}, "web-2": {"acme", "n13"}, "we": {"acme2", ""}, "w": {"acme", "n14"},
	} {
		_, _, err := s.CreateApp(ctx, app, of.org, of.network)
		must(t, err)
		machine(app, "gone", hosts[0], "")
		machine(app, "m", hosts[0], "")
		machine(app, "m2", hosts[0x2d], "") // number 0x30
		_, _, err = s.AllocateVIP(ctx, app, "", "")
		must(t, err)
		_, _, err = s.AllocateVIP(ctx, app, "acme-2", "")
		must(t, err)
	}
	at(t, s, revision)
	web := s.Snapshot().AppMachines("web")
	remove := func(ids ...string) {
		for _, id := range ids {
			_, err := s.DestroyMachine(ctx, id)
			must(t, err)
		}
	}
	for _, row := range []struct {
		what  string
		do    func() (int64, error)
		mayGo string // of what follows the root
	}{
		{"a Machine", func() (int64, error) { return s.DestroyMachine(ctx, web[0].ID) },
			`^(networks/00000001/machines|names/machine-ids|index/host-machines/[0-9a-f]{8})/` + web[0].ID + `$|^names/machines/web/`},
		{"an address", func() (int64, error) { return s.ReleaseVIP(ctx, "web", s.Snapshot().AppVIPs("web")[0].Addr()) },
			`^networks/00000001/vips/|^index/app-vips/web/`},
		{"an app that moves", func() (int64, error) { _, r, err := s.MoveApp(ctx, "web", "acme2", ""); return r, err },
			`^networks/00000001/(apps/web|machines/` + web[1].ID + `|deleted/web/[0-9a-f]+)$|^index/app-vips/web/`},
		{"an app", func() (int64, error) { remove(web[1].ID); return s.DestroyApp(ctx, "web") },
			`^networks/00000002/(apps/web|machines/` + web[1].ID + `|deleted/web/[0-9a-f]+)$|^networks/0000000[123]/vips/|^index/app-vips/web/|^names/(apps/web|machines/web/.*|machine-ids/` + web[1].ID + `)$|^index/host-machines/[0-9a-f]{8}/` + web[1].ID + `$|^changed/app-vips/web$`},
		{"a network", func() (int64, error) { return s.DeleteNetwork(ctx, "acme", "n1") },
			`^networks/00000006/network$|^names/networks/acme/n1$|^changed/(networks|vips)/00000006$`},
		{"an org", func() (int64, error) { return s.DeleteOrg(ctx, "a") },
			`^orgs/a$|^networks/00000004/network$|^names/networks/a/default$|^changed/(networks|vips)/00000004$`},
		{"a host", func() (int64, error) { return s.RemoveHost(ctx, hosts[4], false) },
			`^hosts/00000007/(host|alive)$|^names/hosts/host-4$|^changed/host-machines/00000007$`},
		{"a lost host", func() (int64, error) {
			_, err := e.Client().Delete(ctx, "/sixpn/v1/hosts/00000003/alive")
			must(t, err)
			return s.RemoveHost(ctx, hosts[0], true)
		}, `^hosts/00000003/(host|alive)$|^names/hosts/host-0$|^changed/host-machines/00000003$|^index/host-machines/00000003/|^names/machines/.*/m$|^names/machine-ids/|^networks/[0-9a-f]{8}/machines/`},
	} {
		before := everything(t, e.Client())
		_, err := row.do()
		must(t, err)
		after := everything(t, e.Client())
		may := regexp.MustCompile(row.mayGo)
		gone := 0
		for key := range before {
			if _, stays := after[key]; stays {
				continue
			}
			gone++
			if !may.MatchString(key[len("/sixpn/v1/"):]) {
				t.Errorf("%s took %s with it", row.what, key)
			}
		}
		if gone == 0 {
			t.Errorf("%s took nothing with it", row.what)
		}
	}
	_, last, err := s.CreateOrg(ctx, "last", "")
	must(t, err)
	after := at(t, s, last)
	for _, app := range []string{"web2", "web-2", "we", "w"} {
		if m := after.AppMachines(app); len(m) != 1 || m[0].Host != hosts[0x2d] || len(after.AppVIPs(app)) != 2 || len(after.Deleted(app)) != 2 {
			t.Errorf("%s has Machines %v, addresses %v, and had %v", app, m, after.AppVIPs(app), after.Deleted(app))
		}
	}
}
