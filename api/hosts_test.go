package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// another is a second host of the fleet.
func (w *world) another(name string) state.Host {
	w.t.Helper()
	h, revision, err := w.store.JoinHost(w.t.Context(), state.NewHost{
		Name: name, Region: "fra", Token: name, Endpoint: "192.0.2.2:51821", PublicKey: "uZkvFHBcLFD0IFUwCLaStsrZ6fRbsECzwcbCHWjm6kM=", Version: "v2",
	})
	must(w.t, err)
	w.seen(revision)
	return h
}

func TestHosts(t *testing.T) {
	w := newWorld(t)
	w.seed()
	two := w.another("two")
	silent, revision, err := w.store.RegisterHost(t.Context(), "silent", "fra", 0)
	must(t, err)
	w.seen(revision)
	var list api.HostList
	w.get("/v1/hosts").into(t, &list)
	want := []api.Host{
		{ID: w.host.String(), Name: "one", Region: "ams", State: "present", Machines: 1, ThisHost: true},
		{ID: silent.ID.String(), Name: "silent", Region: "fra", State: "present", Loss: new(1.0)},
		{ID: two.ID.String(), Name: "two", Region: "fra", State: "present", Endpoint: two.Endpoint, PublicKey: two.PublicKey, Version: "v2", RoundTripMs: new(4.2), Loss: new(0.25), HandshakeAt: playedTime, SeenAt: playedTime.Add(time.Minute)},
	}
	if diff := cmp.Diff(want, list.Hosts, cmpopts.IgnoreFields(api.Host{}, "CreatedAt")); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	for _, h := range want { // the same, with what they say themselves
		if h.Name == "silent" {
			h.Answers, h.Error = new(false), "it is silent"
		} else {
			h.Answers, h.Version, h.Mesh, h.Store, h.Message = new(true), "v3", "kernel", api.StoreMemberRoleVoter, "it is behind"
			h.WantedRevision, h.AppliedRevision = 9, 8
		}
		var shown api.Host
		w.get("/v1/hosts/"+h.Name+"?ask=true").into(t, &shown)
		if diff := cmp.Diff(h, shown, cmpopts.IgnoreFields(api.Host{}, "CreatedAt")); diff != "" {
			t.Errorf("%s, asked (-want +got):\n%s", h.Name, diff)
		}
	}
	var probe api.HostProbe
	w.get("/v1/hosts/two/probe").into(t, &probe)
	if want := (api.HostProbe{Host: "two", Way: "both", MTU: 1420, Passes: 1280, Answers: true, ClockOffsetMs: new(-7.5)}); cmp.Diff(want, probe) != "" {
		t.Errorf("probe (-want +got):\n%s", cmp.Diff(want, probe))
	}
	for _, verb := range []string{"drain", "undrain"} {
		w.durable(t, w.post("/v1/hosts/two/"+verb, ""), http.StatusOK)
		w.post("/v1/hosts/two/"+verb, "") // again, which changes nothing
		var shown api.Host
		w.get("/v1/hosts/two").into(t, &shown)
		if draining := verb == "drain"; (shown.State == "draining") != draining || shown.Draining != draining {
			t.Errorf("after %s: %+v", verb, shown)
		}
	}
	before := w.store.Snapshot().Hosts[w.host].PublicKey
	w.durable(t, w.post("/v1/hosts/one/rotate-key", ""), http.StatusOK)
	var shown api.Host
	if w.get("/v1/hosts/one").into(t, &shown); shown.PublicKey == "" || shown.PublicKey == before {
		t.Errorf("after a rotation its key is %q, before it was %q", shown.PublicKey, before)
	}
	for name, r := range map[string]refusal{
		"another's key": {method: "POST", path: "/v1/hosts/two/rotate-key", code: http.StatusServiceUnavailable, status: "unavailable"},
		"itself probed": {method: "GET", path: "/v1/hosts/one/probe", code: http.StatusConflict, status: "conflict", field: "host_name"},
		"nobody probed": {method: "GET", path: "/v1/hosts/nobody/probe", code: http.StatusNotFound, status: "not_found", field: "host_name"},
		"nobody's key":  {method: "POST", path: "/v1/hosts/nobody/rotate-key", code: http.StatusNotFound, status: "not_found", field: "host_name"},
		"its own":       {method: "DELETE", path: "/v1/hosts/one", code: http.StatusConflict, status: "conflict", field: "host_name"},
		"nobody":        {method: "DELETE", path: "/v1/hosts/nobody", code: http.StatusNotFound, status: "not_found", field: "host_name"},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(t, r, func() answer { return w.ask(r.method, r.path, "", "") })
		})
	}
	m, revision, err := w.store.CreateMachine(t.Context(), state.NewMachine{
		App: "web", Region: "fra", Host: two.ID, Config: state.MachineConfig{Init: state.Init{Exec: []string{"true"}}},
	})
	must(t, err)
	w.seen(revision)
	w.refused(t, refusal{code: http.StatusConflict, status: "conflict", field: "host_name"}, func() answer {
		return w.ask("DELETE", "/v1/hosts/two", "", "")
	})
	revision, err = w.store.DestroyMachine(t.Context(), m.ID)
	must(t, err)
	w.seen(revision)
	w.durable(t, w.ask("DELETE", "/v1/hosts/two", "", ""), http.StatusOK)
	if a := w.get("/v1/hosts/two"); a.code != http.StatusNotFound {
		t.Errorf("a host that was removed: %d %s", a.code, a.body)
	}
}

func TestInvitation(t *testing.T) {
	w := newWorld(t)
	a := w.post("/v1/hosts/invitations", `{}`)
	w.durable(t, a, http.StatusCreated)
	var i api.Invitation
	a.into(t, &i)
	if left := time.Until(i.ExpiresAt); i.Token == "" || i.Region != "" || left > time.Hour || left < 59*time.Minute {
		t.Errorf("invitation %+v, expected one of an hour for anywhere", i)
	}
	for _, row := range []struct{ body, field string }{
		{`{"region":"nowhere"}`, "region"}, {`{"expires_in":"721h"}`, "expires_in"}, {`{"expires_in":"-1s"}`, "expires_in"},
	} {
		w.refused(t, refusal{code: http.StatusUnprocessableEntity, status: "invalid_argument", field: row.field}, func() answer {
			return w.post("/v1/hosts/invitations", row.body)
		})
	}
}
