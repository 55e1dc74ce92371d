package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/state"
)

// refusal is a request that must change nothing.
type refusal struct {
	name, method, path, body string
	code                     int
	status, field            string
}

const (
	config  = `{"config":{"init":{"exec":["sleep","60"]}%s}}`
	service = `,"services":[{"protocol":"tcp","internal_port":8080,"ports":[%s]}]`
)

func withConfig(more string) string   { return fmt.Sprintf(config, more) }
func withPort(port string) string     { return withConfig(fmt.Sprintf(service, port)) }
func withMember(member string) string { return withConfig(`,` + member) }

func refusals() []refusal {
	const (
		unprocessable = http.StatusUnprocessableEntity
		missing       = http.StatusNotFound
		bad           = http.StatusBadRequest
	)
	machines, machine, ips := "/v1/apps/web/machines", "/v1/apps/web/machines/{machine}", "/v1/apps/web/ip_assignments"
	return []refusal{
		{"org malformed", "POST", "/v1/orgs", `{"slug":"No_Good"}`, unprocessable, "invalid_argument", "slug"},
		{"org empty", "POST", "/v1/orgs", `{"slug":""}`, unprocessable, "invalid_argument", "slug"},
		{"org missing", "POST", "/v1/orgs", `{}`, unprocessable, "invalid_argument", "slug"},
		{"org taken", "POST", "/v1/orgs", `{"slug":"acme"}`, 409, "name_taken", "slug"},
		{"org name unprintable", "POST", "/v1/orgs", `{"slug":"new","name":"a\nb"}`, unprocessable, "invalid_argument", "name"},
		{"org wait", "POST", "/v1/orgs?wait=soon", `{"slug":"new"}`, unprocessable, "invalid_argument", "wait"},

		{"apps of an unknown org", "GET", "/v1/apps?org_slug=nobody", "", missing, "not_found", "org_slug"},
		{"app malformed", "POST", "/v1/apps", `{"name":"No_Good","org_slug":"acme"}`, unprocessable, "invalid_argument", "name"},
		{"app reserved", "POST", "/v1/apps", `{"name":"vms","org_slug":"acme"}`, unprocessable, "invalid_argument", "name"},
		{"app without a name", "POST", "/v1/apps", `{"org_slug":"acme"}`, unprocessable, "invalid_argument", "name"},
		{"app with two names", "POST", "/v1/apps", `{"name":"a","app_name":"b","org_slug":"acme"}`, unprocessable, "invalid_argument", "app_name"},
		{"app taken", "POST", "/v1/apps", `{"name":"web","org_slug":"acme"}`, 409, "name_taken", "name"},
		{"app taken in another org", "POST", "/v1/apps", `{"app_name":"shop","org_slug":"acme"}`, 409, "name_taken", "name"},
		{"app of an unknown org", "POST", "/v1/apps", `{"name":"new","org_slug":"nobody"}`, missing, "not_found", "org_slug"},
		{"app in an unknown network", "POST", "/v1/apps", `{"name":"new","org_slug":"acme","network":"moon"}`, missing, "not_found", "network"},
		{"app wait", "POST", "/v1/apps?wait=soon", `{"name":"new","org_slug":"acme"}`, unprocessable, "invalid_argument", "wait"},
		{"app unknown", "GET", "/v1/apps/nothing", "", missing, "not_found", "app_name"},

		{"machines of an unknown app", "GET", "/v1/apps/nothing/machines", "", missing, "not_found", "app_name"},
		{"machines include_deleted", "GET", machines + "?include_deleted=perhaps", "", bad, "invalid_argument", "include_deleted"},
		{"machine of an unknown app", "POST", "/v1/apps/nothing/machines", withConfig(""), missing, "not_found", "app_name"},
		{"machine without config", "POST", machines, `{}`, unprocessable, "invalid_argument", "config"},
		{"machine without command", "POST", machines, `{"config":{}}`, unprocessable, "invalid_argument", "config.init.exec"},
		{"machine with an image only", "POST", machines, `{"config":{"image":"nginx"}}`, unprocessable, "invalid_argument", "config.init.exec"},
		{"machine name", "POST", machines, `{"name":"No Good",` + withConfig("")[1:], unprocessable, "invalid_argument", "name"},
		{"machine name taken", "POST", machines, `{"name":"{machine}",` + withConfig("")[1:], 409, "name_taken", "name"},
		{"machine region", "POST", machines, `{"region":"amsterdam",` + withConfig("")[1:], unprocessable, "invalid_argument", "region"},
		{"machine wait", "POST", machines + "?wait=soon", withConfig(""), unprocessable, "invalid_argument", "wait"},
		{"port 0", "POST", machines, withPort(`{"port":0}`), unprocessable, "invalid_argument", "config.services[0].ports[0].port"},
		{"port 70000", "POST", machines, withPort(`{"port":70000}`), unprocessable, "invalid_argument", "config.services[0].ports[0].port"},
		{"port negative", "POST", machines, withPort(`{"port":-1}`), unprocessable, "invalid_argument", "config.services[0].ports[0].port"},
		{"port fraction", "POST", machines, withPort(`{"port":80.5}`), unprocessable, "invalid_argument", "config.services[0].ports[0].port"},
		{"port huge", "POST", machines, withPort(`{"port":99999999999999999999}`), unprocessable, "invalid_argument", "config.services[0].ports[0].port"},
		{"port text", "POST", machines, withPort(`{"port":"80"}`), unprocessable, "invalid_argument", "config.services[0].ports[0].port"},
		{"start_port 70000", "POST", machines, withPort(`{"start_port":70000,"end_port":70001}`), unprocessable, "invalid_argument", "config.services[0].ports[0].start_port"},
		{"end_port 70000", "POST", machines, withPort(`{"start_port":80,"end_port":70000}`), unprocessable, "invalid_argument", "config.services[0].ports[0].end_port"},
		{"internal port 70000", "POST", machines, withMember(`"services":[{"protocol":"tcp","internal_port":70000}]`), unprocessable, "invalid_argument", "config.services[0].internal_port"},
		{"internal port missing", "POST", machines, withMember(`"services":[{"protocol":"tcp"}]`), unprocessable, "invalid_argument", "config.services[0].internal_port"},
		{"handlers", "POST", machines, withPort(`{"port":80,"handlers":["http"]}`), unprocessable, "invalid_argument", "config.services[0].ports[0].handlers"},
		{"one port twice", "POST", machines, withPort(`{"port":80},{"start_port":79,"end_port":81}`), unprocessable, "invalid_argument", "config.services[0].ports[1]"},
		{"two services on one internal port", "POST", machines, withMember(`"services":[{"protocol":"tcp","internal_port":1,"ports":[{"port":1}]},{"protocol":"tcp","internal_port":1,"ports":[{"port":2}]}]`), unprocessable, "invalid_argument", "config.services[1].internal_port"},
		{"limit negative", "POST", machines, withMember(`"services":[{"protocol":"tcp","internal_port":1,"concurrency":{"hard_limit":-1}}]`), unprocessable, "invalid_argument", "config.services[0].concurrency.hard_limit"},
		{"soft limit too large", "POST", machines, withMember(`"services":[{"protocol":"tcp","internal_port":1,"concurrency":{"soft_limit":4294967296}}]`), unprocessable, "invalid_argument", "config.services[0].concurrency.soft_limit"},
		{"autostop", "POST", machines, withMember(`"services":[{"protocol":"tcp","internal_port":1,"autostop":"maybe"}]`), unprocessable, "invalid_argument", "config.services[0].autostop"},
		{"mtu", "POST", machines, withMember(`"mtu":70000`), unprocessable, "invalid_argument", "config.mtu"},
		{"mtu too small", "POST", machines, withMember(`"mtu":1279`), unprocessable, "invalid_argument", "config.mtu"},
		{"restart policy", "POST", machines, withMember(`"restart":{"policy":"sometimes"}`), unprocessable, "invalid_argument", "config.restart.policy"},
		{"stop timeout", "POST", machines, withMember(`"stop_config":{"timeout":"soon"}`), unprocessable, "invalid_argument", "config.stop_config.timeout"},
		{"stop timeout negative", "POST", machines, withMember(`"stop_config":{"timeout":-1}`), unprocessable, "invalid_argument", "config.stop_config.timeout"},
		{"env value", "POST", machines, withMember(`"env":{"A":1}`), unprocessable, "invalid_argument", "config.env.A"},
		{"unknown inside", "POST", machines, withMember(`"services":[{"protocol":"tcp","internal_port":1,"prots":[]}]`), unprocessable, "invalid_argument", "config.services[0].prots"},

		{"machine unknown", "GET", "/v1/apps/web/machines/00000000000000", "", missing, "not_found", "machine_id"},
		{"machine of another app", "GET", "/v1/apps/shop/machines/{machine}", "", missing, "not_found", "machine_id"},
		{"destroy unknown", "DELETE", "/v1/apps/web/machines/00000000000000", "", missing, "not_found", "machine_id"},
		{"destroy of another app", "DELETE", "/v1/apps/shop/machines/{machine}?force=true", "", missing, "not_found", "machine_id"},
		{"destroy what runs", "DELETE", machine, "", http.StatusPreconditionFailed, "failed_precondition", ""},
		{"destroy force", "DELETE", machine + "?force=perhaps", "", bad, "invalid_argument", "force"},
		{"start unknown", "POST", "/v1/apps/web/machines/00000000000000/start", "", missing, "not_found", "machine_id"},
		{"start wait", "POST", machine + "/start?wait=soon", "", unprocessable, "invalid_argument", "wait"},
		{"stop unknown", "POST", "/v1/apps/web/machines/00000000000000/stop", "", missing, "not_found", "machine_id"},
		{"stop another id", "POST", machine + "/stop", `{"id":"00000000000000"}`, unprocessable, "invalid_argument", "id"},
		{"stop signal", "POST", machine + "/stop", `{"signal":"SIGNOTHING"}`, unprocessable, "invalid_argument", "signal"},
		{"stop timeout long", "POST", machine + "/stop", `{"timeout":"1000h"}`, unprocessable, "invalid_argument", "timeout"},
		{"restart unknown", "POST", "/v1/apps/web/machines/00000000000000/restart", "", missing, "not_found", "machine_id"},
		{"restart timeout", "POST", machine + "/restart?timeout=soon", "", unprocessable, "invalid_argument", "timeout"},
		{"restart signal", "POST", machine + "/restart?signal=nothing", "", unprocessable, "invalid_argument", "signal"},
		{"restart force", "POST", machine + "/restart?force_stop=perhaps", "", bad, "invalid_argument", "force_stop"},
		{"exec unknown", "POST", "/v1/apps/web/machines/00000000000000/exec", `{"cmd":"true"}`, missing, "not_found", "machine_id"},
		{"exec nothing", "POST", machine + "/exec", `{}`, unprocessable, "invalid_argument", "command"},
		{"exec both", "POST", machine + "/exec", `{"cmd":"true","command":["true"]}`, unprocessable, "invalid_argument", "cmd"},
		{"exec quote", "POST", machine + "/exec", `{"cmd":"echo 'a"}`, unprocessable, "invalid_argument", "cmd"},
		{"exec timeout", "POST", machine + "/exec", `{"cmd":"true","timeout":-1}`, unprocessable, "invalid_argument", "timeout"},
		{"exec container", "POST", machine + "/exec", `{"cmd":"true","container":"c"}`, unprocessable, "invalid_argument", "container"},
		{"wait unknown", "GET", "/v1/apps/web/machines/00000000000000/wait", "", missing, "not_found", "machine_id"},
		{"wait state", "GET", machine + "/wait?state=happy", "", unprocessable, "invalid_argument", "state"},
		{"wait timeout 0", "GET", machine + "/wait?timeout=0", "", unprocessable, "invalid_argument", "timeout"},
		{"wait timeout long", "GET", machine + "/wait?timeout=3601", "", unprocessable, "invalid_argument", "timeout"},
		{"wait timeout text", "GET", machine + "/wait?timeout=soon", "", bad, "invalid_argument", "timeout"},
		{"wait timeout beyond numbers", "GET", machine + "/wait?timeout=99999999999999999999", "", bad, "invalid_argument", "timeout"},
		{"cordon with no lease", "POST", machine + "/cordon?with_lease=true", "", unprocessable, "invalid_argument", "with_lease"},
		{"wait in vain", "GET", machine + "/wait?state=stopped&timeout=1", "", http.StatusRequestTimeout, "deadline_exceeded", ""},
		{"logs unknown", "GET", "/v1/apps/web/machines/00000000000000/logs", "", missing, "not_found", "machine_id"},
		{"logs after", "GET", machine + "/logs?after=noon", "", unprocessable, "invalid_argument", "after"},
		{"logs follow", "GET", machine + "/logs?follow=perhaps", "", bad, "invalid_argument", "follow"},

		{"ips of an unknown app", "GET", "/v1/apps/nothing/ip_assignments", "", missing, "not_found", "app_name"},
		{"ip for an unknown app", "POST", "/v1/apps/nothing/ip_assignments", `{"type":"private_v6"}`, missing, "not_found", "app_name"},
		{"ip type", "POST", ips, `{"type":"v4"}`, unprocessable, "invalid_argument", "type"},
		{"ip type missing", "POST", ips, `{}`, unprocessable, "invalid_argument", "type"},
		{"ip region", "POST", ips, `{"type":"private_v6","region":"ams"}`, unprocessable, "invalid_argument", "region"},
		{"ip service", "POST", ips, `{"type":"private_v6","service_name":"s"}`, unprocessable, "invalid_argument", "service_name"},
		{"ip for an unknown org", "POST", ips, `{"type":"private_v6","org_slug":"nobody"}`, missing, "not_found", "org_slug"},
		{"ip for an unknown network", "POST", ips, `{"type":"private_v6","org_slug":"other","network":"moon"}`, missing, "not_found", "network"},
		{"ip wait", "POST", ips + "?wait=soon", `{"type":"private_v6"}`, unprocessable, "invalid_argument", "wait"},
		{"release malformed", "DELETE", ips + "/nothing", "", unprocessable, "invalid_argument", "ip"},
		{"release unknown", "DELETE", ips + "/fdaa:0:1:0:1::ff", "", missing, "not_found", "ip"},
		{"release of another app", "DELETE", "/v1/apps/shop/ip_assignments/{ip}", "", missing, "not_found", "ip"},
		{"release of an unknown app", "DELETE", "/v1/apps/nothing/ip_assignments/{ip}", "", missing, "not_found", "app_name"},
		{"release wait", "DELETE", ips + "/{ip}?wait=soon", "", unprocessable, "invalid_argument", "wait"},

		{"no such path", "GET", "/v1/nothing", "", missing, "not_found", ""},
		{"no such method", "PUT", "/v1/apps", "{}", http.StatusMethodNotAllowed, "invalid_argument", ""},
	}
}

func TestRefusedChangesNothing(t *testing.T) {
	w := newWorld(t)
	machine, ip := w.seed()
	fill := strings.NewReplacer("{machine}", machine.ID, "{ip}", ip.String())
	for _, row := range refusals() {
		t.Run(row.name, func(t *testing.T) {
			w.refused(t, row, func() answer {
				return w.ask(row.method, fill.Replace(row.path), contentType(row.body), fill.Replace(row.body))
			})
		})
	}
}

// A parameter of the wrong kind is refused in the API's own words.
func TestMalformedParameters(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	at := "/v1/apps/web/machines/" + m.ID
	for path, want := range map[string]string{
		at + "/wait?timeout=1s":                   `timeout is "1s", expected a whole number, without a unit`,
		at + "/wait?timeout=99999999999999999999": "timeout is 99999999999999999999, which is beyond all numbers: expected a smaller one",
		at + "/logs?follow=perhaps":               `follow is "perhaps", expected true or false`,
	} {
		if got := w.get(path).failure.Error; got != want {
			t.Errorf("%s: %q, expected %q", path, got, want)
		}
	}
}

func contentType(body string) string {
	if body == "" {
		return ""
	}
	return "application/json"
}

// refused checks an answer, and that neither the snapshot nor the store's
// revision has moved.
func (w *world) refused(t *testing.T, row refusal, ask func() answer) {
	t.Helper()
	before := w.before()
	a := ask()
	if a.code != row.code || a.failure.Status != row.status || a.failure.Field != row.field {
		t.Errorf("answer %d %+v, expected %d, status %q and field %q", a.code, a.failure, row.code, row.status, row.field)
	}
	if a.failure.Error == "" {
		t.Error("the answer does not say what was wrong")
	}
	w.unchanged(t, before)
}

func TestAddressBeyondCapacityIsRefused(t *testing.T) {
	w := newWorld(t)
	w.seed()
	var last int64
	for range state.MaxAppVIPs - 1 {
		var err error
		_, last, err = w.store.AllocateVIP(t.Context(), "web", "", "")
		must(t, err)
	}
	w.seen(last)
	w.refused(t, refusal{code: http.StatusUnprocessableEntity, status: "resource_exhausted", field: "app_name"}, func() answer {
		return w.post("/v1/apps/web/ip_assignments", `{"type":"private_v6"}`)
	})
}
