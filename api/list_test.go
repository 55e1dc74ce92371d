package api_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// ids is those of a list, in its order.
func ids(list []api.Machine) []string {
	found := []string{}
	for _, m := range list {
		found = append(found, m.ID)
	}
	return found
}

func TestListByStateAndSummary(t *testing.T) {
	w := newWorld(t)
	started, _ := w.seed()
	created := w.create("web", state.Restart{})
	both := []string{started.ID, created.ID}
	slices.Sort(both)
	for query, want := range map[string][]string{
		"?state=started": {started.ID}, "?state=created": {created.ID}, "?state=started,created": both, "?state=failed": {},
		"?state=started&region=fra": {},
	} {
		var list []api.Machine
		w.get("/v1/apps/web/machines"+query).into(t, &list)
		if diff := cmp.Diff(want, ids(list)); diff != "" {
			t.Errorf("machines%s (-want +got):\n%s", query, diff)
		}
	}
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "state"}, func() answer {
		return w.get("/v1/apps/web/machines?state=started,happy")
	})
	var list []api.Machine
	w.get("/v1/apps/web/machines?summary=true").into(t, &list)
	for _, m := range list {
		if m.Config.Init.Exec != nil || m.Events != nil || m.PrivateIP == "" {
			t.Errorf("Machine %+v in a summary, expected neither config nor events", m)
		}
	}
}

func TestListDeleted(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	w.become(m.ID, state.Stopped, new(int))
	revision, err := w.store.DestroyMachine(t.Context(), m.ID)
	must(t, err)
	w.seen(revision)
	var list []api.Machine
	for query, want := range map[string]int{"": 0, "?include_deleted=true": 1, "?include_deleted=true&state=destroyed": 1, "?include_deleted=true&state=stopped": 0} {
		w.get("/v1/apps/web/machines"+query).into(t, &list)
		if len(list) != want || want == 1 && (list[0].ID != m.ID || list[0].State != "destroyed") {
			t.Errorf("machines%s are %+v, expected %d", query, list, want)
		}
	}
}

// Pages together are the whole list, also when Machines come and go in between.
func TestListPages(t *testing.T) {
	w := newWorld(t)
	first, _ := w.seed()
	want := []string{first.ID}
	for range 6 {
		want = append(want, w.create("web", state.Restart{}).ID)
	}
	w.create("shop", state.Restart{}) // of another org
	slices.Sort(want)
	for _, limit := range []string{"1", "2", "7", "1000"} {
		var found []string
		for cursor := ""; len(found) <= len(want); {
			var page api.MachinePage
			a := w.get("/v1/orgs/acme/machines?limit=" + limit + "&cursor=" + cursor)
			a.into(t, &page)
			found = append(found, ids(page.Machines)...)
			if cursor = page.NextCursor; cursor == "" {
				break
			}
		}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Errorf("pages of %s (-want +got):\n%s", limit, diff)
		}
	}
	var page api.MachinePage
	w.get("/v1/orgs/acme/machines?limit=3").into(t, &page)
	revision, err := w.store.DestroyMachine(t.Context(), want[2])
	if err != nil { // it runs
		w.become(want[2], state.Stopped, new(int))
		revision, err = w.store.DestroyMachine(t.Context(), want[2])
	}
	must(t, err)
	w.seen(revision)
	w.get("/v1/orgs/acme/machines?limit=100&cursor="+page.NextCursor).into(t, &page)
	if diff := cmp.Diff(want[3:], ids(page.Machines)); diff != "" {
		t.Errorf("the rest after the last one of a page is gone (-want +got):\n%s", diff)
	}
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "cursor"}, func() answer {
		return w.get("/v1/orgs/acme/machines?cursor=2")
	})
	if a := w.get("/v1/orgs/empty/machines"); a.code != http.StatusNotFound {
		t.Errorf("answer %d %s for an org that there is not", a.code, a.body)
	}
}

func TestImageRef(t *testing.T) {
	w := newWorld(t)
	w.seed()
	for image, want := range map[string]api.ImageRef{
		"": {}, "nginx": {Repository: "nginx"}, "nginx:1": {Repository: "nginx", Tag: "1"},
		"library/nginx@sha256:abc":           {Repository: "library/nginx", Digest: "sha256:abc"},
		"localhost/a:b":                      {Registry: "localhost", Repository: "a", Tag: "b"},
		"r.example:5000/a/b":                 {Registry: "r.example:5000", Repository: "a/b"},
		"r.example:5000/a/b:1.2@sha256:0123": {Registry: "r.example:5000", Repository: "a/b", Tag: "1.2", Digest: "sha256:0123"},
	} {
		var m api.Machine
		w.post("/v1/apps/web/machines", withMember(`"image":"`+image+`"`)).into(t, &m)
		want.Labels = map[string]string{}
		if diff := cmp.Diff(want, m.ImageRef); diff != "" || m.Config.Image != image {
			t.Errorf("image %q, kept as %q (-want +got):\n%s", image, m.Config.Image, diff)
		}
	}
}

func TestNetworksAndMove(t *testing.T) {
	w := newWorld(t)
	m, ip := w.seed()
	a := w.post("/v1/orgs/acme/networks", `{"name":"lab"}`)
	w.durable(t, a, http.StatusCreated)
	var lab api.Network
	a.into(t, &lab)
	var list api.NetworkList
	w.get("/v1/orgs/acme/networks").into(t, &list)
	if len(list.Networks) != 2 || list.Networks[0].Name != "default" || list.Networks[1] != lab || lab.Prefix == list.Networks[0].Prefix {
		t.Errorf("networks %+v, expected default and %+v", list.Networks, lab)
	}
	w.refused(t, refusal{code: 409, status: "name_taken", field: "name"}, func() answer { return w.post("/v1/orgs/acme/networks", `{"name":"lab"}`) })
	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "name"}, func() answer { return w.post("/v1/orgs/acme/networks", `{"name":"L"}`) })

	w.refused(t, refusal{code: 422, status: "invalid_argument", field: "org_slug"}, func() answer { return w.post("/v1/apps/web/move", `{}`) })
	w.refused(t, refusal{code: 404, status: "not_found", field: "org_slug"}, func() answer { return w.post("/v1/apps/web/move", `{"org_slug":"nobody"}`) })
	w.refused(t, refusal{code: 404, status: "not_found", field: "network"}, func() answer { return w.post("/v1/apps/web/move", `{"network":"moon"}`) })
	a = w.post("/v1/apps/web/move", `{"network":"lab"}`)
	w.durable(t, a, http.StatusOK)
	var app api.App
	a.into(t, &app)
	now := w.machine(m.ID)
	if app.Network != "lab" || app.Organization.Slug != "acme" || sixpn.NetworkPrefix(now.Network).String() != lab.Prefix || now.InstanceID == m.InstanceID {
		t.Errorf("app %+v and Machine %+v, expected both in lab", app, now)
	}
	if a := w.get("/v1/apps/web/ip_assignments/" + ip.String()); a.code != http.StatusNotFound {
		t.Errorf("the address of before is answered %d %s", a.code, a.body)
	}
	w.refused(t, refusal{code: 409, status: "conflict", field: "network"}, func() answer { return w.ask("DELETE", "/v1/orgs/acme/networks/lab", "", "") })
	w.refused(t, refusal{code: 409, status: "conflict", field: "network"}, func() answer { return w.ask("DELETE", "/v1/orgs/acme/networks/default", "", "") })
	w.refused(t, refusal{code: 409, status: "conflict", field: "org_slug"}, func() answer { return w.ask("DELETE", "/v1/orgs/acme", "", "") })

	w.durable(t, w.ask("DELETE", "/v1/apps/web", "", ""), http.StatusAccepted)
	w.get("/v1/apps/web").into(t, &app)
	if app.Status != "destroying" || w.machine(m.ID).Desired != state.Destroyed {
		t.Errorf("app %+v, expected it to go with its Machine", app)
	}
	w.refused(t, refusal{code: 409, status: "conflict", field: "app_name"}, func() answer { return w.post("/v1/apps/web/machines", withConfig("")) })
}
