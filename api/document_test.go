package api_test

import (
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sixpn/sixpn/api"
)

// Every body of the document is checked for members that nobody knows, and the
// schema says so to clients as well.
func TestEveryBodyIsChecked(t *testing.T) {
	loaded, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	must(t, err)
	must(t, loaded.Validate(t.Context()))
	bodies := api.Bodies()
	for route, item := range loaded.Paths.Map() {
		for method, operation := range item.Operations() {
			at := method + " " + route
			kind, checked := bodies[at]
			delete(bodies, at)
			if operation.RequestBody == nil {
				if checked {
					t.Errorf("%s has no body in the document", at)
				}
				continue
			}
			schema := operation.RequestBody.Value.Content["application/json"].Schema
			if !checked || path.Base(schema.Ref) != kind.Name() {
				t.Errorf("the body of %s is checked as %v, expected %s", at, kind, schema.Ref)
			}
			if api.BodyIsOptional(at) == operation.RequestBody.Value.Required {
				t.Errorf("whether the body of %s is required differs from the document", at)
			}
			if allowed := schema.Value.AdditionalProperties.Has; allowed == nil || *allowed {
				t.Errorf("%s does not say that it has no other members", schema.Ref)
			}
		}
	}
	for at := range bodies {
		t.Errorf("%s is not in the document", at)
	}
}

// What the real client posts is accepted, word for word but for two things: the
// command, for its image is no file of this host, and handlers, which nothing
// serves and which are refused.
func TestRealClientsRequestsAreAccepted(t *testing.T) {
	w := newWorld(t)
	machine, _ := w.seed()
	at, nonce := "/v1/apps/web/machines/"+machine.ID, ""
	for _, row := range []struct {
		name, method, path, body string
		code                     int
	}{
		{"apps create", "POST", "/v1/apps?wait=true", `{"name":"newapp","org_slug":"acme","network":"","app_role_id":""}`, http.StatusCreated},
		{"machine run", "POST", "/v1/apps/web/machines", `{"config":{"init":{"cmd":["sleep","60"]},"guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256},"metadata":{"role":"db"},"services":[{"protocol":"tcp","internal_port":8080,"autostop":"suspend","autostart":true,"ports":[{"port":80}],"force_instance_key":null}],"image":"registry-1.docker.io/library/nginx:latest@sha256:abc","dns":{}},"region":"iad","skip_secrets":false}`, http.StatusOK},
		{"machine run with a name", "POST", "/v1/apps/web/machines", `{"config":{"init":{"entrypoint":["sleep"],"cmd":["60"]},"guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256},"services":[{"protocol":"tcp","internal_port":8080,"ports":[{"port":443}],"force_instance_key":null}],"image":"registry-1.docker.io/library/nginx:latest@sha256:abc","dns":{}},"region":"iad","name":"web1","skip_secrets":false}`, http.StatusOK},
		{"wait", "GET", at + "/wait?state=started&timeout=60", "", http.StatusOK},
		{"apps list, status", "GET", "/v1/apps/web/machines", "", http.StatusOK},
		{"apps show", "GET", "/v1/apps/newapp", "", http.StatusOK},
		{"platform regions", "GET", "/v1/platform/regions", "", http.StatusOK},
		{"lease", "POST", at + "/lease?ttl=120", "", http.StatusCreated},
		{"stop", "POST", at + "/stop", `{"id":"` + machine.ID + `","timeout":"0s"}`, http.StatusOK},
		{"stop by a signal", "POST", at + "/stop", `{"id":"` + machine.ID + `","signal":"SIGTERM","timeout":"5s"}`, http.StatusOK},
		{"start", "POST", at + "/start", "", http.StatusOK},
		{"release", "DELETE", at + "/lease", "", http.StatusOK},
	} {
		t.Run(row.name, func(t *testing.T) {
			// The client sends its nonce with all that it does under a lease.
			a := w.holding(nonce, row.method, row.path, "application/json", row.body)
			if row.name == "lease" {
				var lease api.LeaseAnswer
				a.into(t, &lease)
				nonce = lease.Data.Nonce
			}
			if a.code != row.code {
				t.Fatalf("answer %d %s, expected %d", a.code, a.body, row.code)
			}
			if row.method != http.MethodPost || !strings.HasSuffix(row.path, "/machines") {
				return
			}
			var m api.Machine
			a.into(t, &m)
			if strings.Join(m.Config.Init.Exec, " ") != "sleep 60" || m.Region != "iad" {
				t.Errorf("Machine %s, expected it to run sleep 60 in iad", a.body)
			}
		})
	}
}

// Members are what clients of the Machines API look for.
func TestMachineHasTheMembersOfTheMachinesAPI(t *testing.T) {
	w := newWorld(t)
	machine, _ := w.seed()
	code := 3
	w.become(machine.ID, "stopped", &code)
	var members map[string]json.RawMessage
	w.get("/v1/apps/web/machines/"+machine.ID).into(t, &members)
	for _, name := range []string{
		"id", "name", "state", "region", "instance_id", "version", "private_ip", "created_at", "updated_at", "config", "events", "host_status", "image_ref",
	} {
		if len(members[name]) == 0 || string(members[name]) == `""` {
			t.Errorf("the Machine has no %s", name)
		}
	}
	var events []api.MachineEvent
	must(t, json.Unmarshal(members["events"], &events))
	if len(events) != 3 || events[0].Type != "exit" || events[0].Request.ExitEvent.ExitCode != 3 || events[1].Type != "start" || events[2].Type != "launch" {
		t.Errorf("events %s, expected its end with code 3, its start and its launch", members["events"])
	}
	var config map[string]json.RawMessage
	must(t, json.Unmarshal(members["config"], &config))
	if len(config) != 1 || config["init"] == nil {
		t.Errorf("config %s, expected only what was asked for", members["config"])
	}
}
