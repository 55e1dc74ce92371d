package api_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// alive gives hosts their leases, which only counts where a transaction looks.
func (w *world) alive(hosts ...sixpn.Host) {
	w.t.Helper()
	for _, h := range hosts {
		put, err := w.etcd.Put(w.t.Context(), fmt.Sprintf("/sixpn/v1/hosts/%08x/alive", uint32(h)), `{"session":"of a test"}`)
		must(w.t, err)
		w.seen(put.Header.Revision)
	}
}

// Which host a new Machine goes to: one is asked and in ams, two and three in fra.
func TestPlace(t *testing.T) {
	w := newWorld(t)
	w.seed()
	hosts := map[string]sixpn.Host{"one": w.host}
	for _, name := range []string{"two", "three"} {
		h, revision, err := w.store.RegisterHost(t.Context(), name, "fra", 0)
		must(t, err)
		w.seen(revision)
		hosts[name] = h.ID
	}
	drain := func(name string, draining bool) {
		revision, err := w.store.SetDraining(t.Context(), hosts[name], draining)
		must(t, err)
		w.seen(revision)
	}
	create := func(more string) (m api.Machine, a answer) {
		a = w.post("/v1/apps/web/machines", `{"config":{"init":{"exec":["sleep","60"]}}`+more+`}`)
		if a.code == http.StatusOK {
			a.into(t, &m)
		}
		return m, a
	}
	for _, row := range []struct {
		name, more   string
		host, region string
	}{
		{"no wish", ``, "one", "ams"},
		{"its own region", `,"region":"ams"`, "one", "ams"},
		{"another region, whose hosts have none", `,"region":"fra"`, "two", "fra"},
		{"again: the one with fewer", `,"region":"fra"`, "three", "fra"},
		{"a region without a host, in name", `,"region":"nrt"`, "one", "nrt"},
		{"a host", `,"host_name":"three"`, "three", "fra"},
		{"a host and its region", `,"host_name":"three","region":"fra"`, "three", "fra"},
		{"an id", `,"id":"00000000000001","region":"fra"`, "two", "fra"},
		{"the same again, though that one has more now", `,"id":"00000000000001","region":"fra"`, "two", "fra"},
	} {
		m, a := create(row.more)
		if a.code != http.StatusOK || m.HostName != row.host || m.Region != row.region {
			t.Errorf("%s: answer %d, Machine %s in %s, expected %s in %s", row.name, a.code, m.HostName, m.Region, row.host, row.region)
		}
		if made := w.store.Snapshot().Machines[m.ID]; made.Host != hosts[row.host] {
			t.Errorf("%s: it is on host %v", row.name, made.Host)
		}
	}
	var attached api.Machine
	w.post("/v1/apps/web/machines", `{"config":{"attach":{"device":"tap0"}},"host_name":"three"}`).into(t, &attached)
	if attached.HostName != "three" {
		t.Errorf("what is attached on three is on %s", attached.HostName)
	}
	drain("two", true)
	if m, _ := create(`,"region":"fra"`); m.HostName != "three" {
		t.Errorf("with two drained it is on %s, expected three", m.HostName)
	}
	drain("three", true)
	w.store.SetHost(w.host) // to which all are lost but two
	w.alive(hosts["two"])
	for name, row := range map[string]refusal{
		"all of the region drained": {body: `,"region":"fra"`, code: http.StatusPreconditionFailed, status: "failed_precondition"},
		"a host that is drained":    {body: `,"host_name":"two"`, code: http.StatusConflict, status: "conflict", field: "host_name"},
		"a host of another region":  {body: `,"host_name":"two","region":"ams"`, code: http.StatusUnprocessableEntity, status: "invalid_argument", field: "region"},
		"a host that there is not":  {body: `,"host_name":"nobody"`, code: http.StatusNotFound, status: "not_found", field: "host_name"},
		"a host that is lost":       {body: `,"host_name":"three"`, code: http.StatusPreconditionFailed, status: "failed_precondition"},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(t, row, func() answer {
				_, a := create(row.body)
				return a
			})
		})
	}
}

func TestMigrateMachine(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	two := w.another("two")
	w.alive(w.host, two.ID)
	at := "/v1/apps/web/machines/" + m.ID
	for name, row := range map[string]refusal{
		"no host":                  {body: `{}`, code: http.StatusUnprocessableEntity, status: "invalid_argument", field: "host_name"},
		"a host that there is not": {body: `{"host_name":"nobody"}`, code: http.StatusNotFound, status: "not_found", field: "host_name"},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(t, row, func() answer { return w.post(at+"/migrate", row.body) })
		})
	}
	a := w.post(at+"/migrate", `{"host_name":"two"}`)
	w.durable(t, a, http.StatusOK)
	var shown api.Machine
	a.into(t, &shown)
	if shown.State != "stopping" || shown.HostName != "one" || shown.Migration == nil || shown.Migration.From != "one" || shown.Migration.To != "two" || shown.Migration.Error != "" {
		t.Errorf("on its way it is %+v (%+v)", shown, shown.Migration)
	}
	w.become(m.ID, state.Stopped, nil)
	_, revision, err := w.store.HandOver(t.Context(), w.host, m.ID)
	must(t, err)
	w.seen(revision)
	w.get(at).into(t, &shown)
	if shown.HostName != "two" || shown.Region != "fra" || shown.PrivateIP == m.Addr().String() {
		t.Errorf("handed over it is %+v", shown)
	}
	_, revision, err = w.store.HandBack(t.Context(), two.ID, m.ID, "no such file")
	must(t, err)
	w.seen(revision)
	shown = api.Machine{}
	w.get(at).into(t, &shown)
	if shown.HostName != "one" || shown.Migration == nil || shown.Migration.Error != "no such file" {
		t.Errorf("handed back it is %+v (%+v)", shown, shown.Migration)
	}
}
