package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// durable checks that a write is answered with the revision that has it, and that
// a read finds it at once.
func (w *world) durable(t *testing.T, a answer, code int) {
	t.Helper()
	if a.code != code {
		t.Fatalf("answer %d %s, expected %d", a.code, a.body, code)
	}
	if got := a.header.Get("Sixpn-Revision"); got != strconv.FormatInt(w.revision(), 10) {
		t.Errorf("revision %q, expected that of the write, %d", got, w.revision())
	}
}

func TestOrgs(t *testing.T) {
	w := newWorld(t)
	var list api.OrgList
	w.get("/v1/orgs").into(t, &list)
	if list.Organizations == nil || len(list.Organizations) != 0 {
		t.Errorf("orgs %v, expected an empty list", list.Organizations)
	}
	a := w.post("/v1/orgs", `{"slug":"acme"}`)
	w.durable(t, a, http.StatusCreated)
	var org api.Org
	a.into(t, &org)
	if org.ID != "acme" || org.Slug != "acme" || org.Name != "acme" || len(org.Networks) != 1 || org.Networks[0].Name != "default" {
		t.Errorf("org %+v, expected acme and its default network", org)
	}
	w.durable(t, w.post("/v1/orgs", `{"slug":"aaa","name":"First Inc."}`), http.StatusCreated)
	w.get("/v1/orgs").into(t, &list)
	if len(list.Organizations) != 2 || list.Organizations[0].Name != "First Inc." || !cmp.Equal(list.Organizations[1], org) {
		t.Errorf("orgs %+v, expected aaa and acme", list.Organizations)
	}
}

func TestApps(t *testing.T) {
	w := newWorld(t)
	w.post("/v1/orgs", `{"slug":"acme","name":"Acme"}`)
	w.post("/v1/orgs", `{"slug":"other"}`)
	a := w.post("/v1/apps", `{"name":"web","org_slug":"acme"}`)
	w.durable(t, a, http.StatusCreated)
	w.durable(t, w.post("/v1/apps", `{"app_name":"shop","org_slug":"other"}`), http.StatusCreated)
	var app api.App
	a.into(t, &app)
	want := api.App{ID: "web", Name: "web", Network: "default", Status: "pending", Organization: api.Organization{Slug: "acme", Name: "Acme"}, CreatedAt: app.CreatedAt}
	if diff := cmp.Diff(want, app); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
	w.create("web", state.Restart{})
	want.Status, want.MachineCount = "deployed", 1
	w.get("/v1/apps/web").into(t, &app)
	if diff := cmp.Diff(want, app); diff != "" {
		t.Errorf("app with a Machine (-want +got):\n%s", diff)
	}
	for query, names := range map[string]string{"": "shop web", "?org_slug=acme": "web", "?org_slug=other": "shop"} {
		var list api.AppList
		w.get("/v1/apps"+query).into(t, &list)
		var got []string
		for _, app := range list.Apps {
			got = append(got, app.Name)
		}
		if strings.Join(got, " ") != names || list.TotalApps != len(got) {
			t.Errorf("apps%s are %d %v, expected %s", query, list.TotalApps, got, names)
		}
	}
}

func TestMachineConfigComesBack(t *testing.T) {
	w := newWorld(t)
	w.seed()
	const body = `{"name":"one","region":"fra","config":{
		"init":{"exec":["sleep","60"]},"env":{"A":"b"},"metadata":{"fly_process_group":"worker"},
		"restart":{"policy":"on-failure","max_retries":3},"auto_destroy":true,"workdir":"/tmp","mtu":1400,
		"stop_config":{"signal":"SIGINT","timeout":5000000000},
		"services":[
			{"protocol":"tcp","internal_port":8080,"ports":[{"port":80},{"start_port":8000,"end_port":8010}],
			 "concurrency":{"type":"connections","soft_limit":10,"hard_limit":20}},
			{"protocol":"udp","internal_port":53,"ports":[{"port":53}]}]}}`
	a := w.post("/v1/apps/web/machines", body)
	w.durable(t, a, http.StatusOK)
	var m api.Machine
	a.into(t, &m)
	want := api.MachineConfig{
		Init: api.Init{Exec: []string{"sleep", "60"}}, Env: map[string]string{"A": "b"}, Metadata: map[string]string{"fly_process_group": "worker"},
		Restart: api.Restart{Policy: "on-failure", MaxRetries: 3}, AutoDestroy: true, Workdir: "/tmp", MTU: 1400,
		StopConfig: api.StopConfig{Signal: "SIGINT", Timeout: api.DurationValue(5 * time.Second)},
		Services: []api.Service{
			{Protocol: "tcp", InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}, {StartPort: 8000, EndPort: 8010}},
				Concurrency: &api.Concurrency{Type: "connections", SoftLimit: 10, HardLimit: 20}},
			{Protocol: "udp", InternalPort: 53, Ports: []api.ServicePort{{Port: 53}}},
		},
	}
	if diff := cmp.Diff(want, m.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if m.State != "created" || m.Name != "one" || m.Region != "fra" {
		t.Errorf("Machine %+v, expected one in fra, created", m)
	}
	kind, fields := sixpn.Classify(w.store.Snapshot().Machines[m.ID].Addr())
	if kind != sixpn.KindMachine || fields.Host != w.host || m.PrivateIP != fields.Addr().String() {
		t.Errorf("address %s, expected one of a Machine of host %v", m.PrivateIP, w.host)
	}
	var again api.Machine
	w.get("/v1/apps/web/machines/"+m.ID).into(t, &again)
	if diff := cmp.Diff(m, again); diff != "" {
		t.Errorf("what was answered and what is read (-answered +read):\n%s", diff)
	}
}

// Every member that a configuration can have is kept and shown.
func TestEveryMemberComesBack(t *testing.T) {
	w := newWorld(t)
	w.seed()
	var asked api.CreateMachineRequest
	must(t, json.Unmarshal([]byte(everyMember), &asked))
	var m api.Machine
	w.post("/v1/apps/web/machines", everyMember).into(t, &m)
	if diff := cmp.Diff(asked.Config, m.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if m.ID != asked.ID || m.Name != asked.Name || m.DesiredState != "stopped" || m.State != "created" || m.Nonce == "" {
		t.Errorf("Machine %+v, expected what was asked for", m)
	}
}

// What the host sees of a Machine is shown.
func TestChecksAndRelaysAreShown(t *testing.T) {
	w := newWorld(t)
	m, _ := w.seed()
	check := state.CheckStatus{Name: "alive", Service: -1, Status: state.CheckCritical, Output: "refused", UpdatedAt: time.Now().UTC()}
	_, revision, err := w.store.UpdateMachine(t.Context(), m.ID, func(m *state.Machine) error {
		m.Checks, m.Relayed = []state.CheckStatus{check}, []uint16{8080}
		return nil
	})
	must(t, err)
	w.seen(revision)
	var shown api.Machine
	w.get("/v1/apps/web/machines/"+m.ID).into(t, &shown)
	want := []api.CheckStatus{{Name: "alive", Status: "critical", Output: "refused", UpdatedAt: check.UpdatedAt}}
	if diff := cmp.Diff(want, shown.Checks); diff != "" || !cmp.Equal(shown.RelayedPorts, []int{8080}) {
		t.Errorf("relayed %v, checks (-want +got):\n%s", shown.RelayedPorts, diff)
	}
}

func TestListMachines(t *testing.T) {
	w := newWorld(t)
	first, _ := w.seed()
	var second api.Machine
	w.post("/v1/apps/web/machines", `{"region":"fra","config":{"init":{"exec":["true"]},"metadata":{"role":"db","n":""}}}`).into(t, &second)
	for query, want := range map[string][]string{
		"": {first.ID, second.ID}, "?include_deleted=true": {first.ID, second.ID},
		"?region=ams": {first.ID}, "?region=fra": {second.ID}, "?region=nrt": {},
		"?metadata.role=db": {second.ID}, "?metadata.role=web": {}, "?metadata.n=": {second.ID}, "?metadata.none=": {},
		"?metadata.role=db&region=ams": {},
	} {
		list := []api.Machine{}
		w.get("/v1/apps/web/machines"+query).into(t, &list)
		got := []string{}
		for _, m := range list {
			got = append(got, m.ID)
		}
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
			t.Errorf("machines%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestIPAssignments(t *testing.T) {
	w := newWorld(t)
	_, first := w.seed()
	path := "/v1/apps/web/ip_assignments"
	a := w.post(path, `{"type":"private_v6","org_slug":"other","region":"global"}`)
	w.durable(t, a, http.StatusOK)
	var crossing api.IPAssignment
	a.into(t, &crossing)
	if crossing.OrgSlug != "other" || crossing.Network != "default" || crossing.Region != "global" || crossing.Shared {
		t.Errorf("assignment %+v, expected one of org other", crossing)
	}
	var list api.IPAssignmentList
	w.get(path).into(t, &list)
	if len(list.Ips) != 2 || list.Ips[0].IP != first.String() || list.Ips[0].OrgSlug != "acme" || !cmp.Equal(list.Ips[1], crossing) {
		t.Errorf("addresses %+v, expected %v and %v", list.Ips, first, crossing.IP)
	}
	w.durable(t, w.ask("DELETE", path+"/"+first.String(), "", ""), http.StatusNoContent)
	w.durable(t, w.ask("DELETE", path+"/"+crossing.IP, "", ""), http.StatusNoContent)
	a = w.get(path)
	a.into(t, &list)
	if len(list.Ips) != 0 || !strings.Contains(string(a.body), "[]") {
		t.Errorf("addresses %s, expected an empty list", a.body)
	}
}

// A request with an id of its own, sent again because its answer was lost, makes no
// second address; with the same id for something else it is refused.
func TestIPAssignmentIsRepeated(t *testing.T) {
	w := newWorld(t)
	w.seed()
	path := "/v1/apps/web/ip_assignments"
	var first, again api.IPAssignment
	w.post(path, `{"type":"private_v6","id":"request-1"}`).into(t, &first)
	w.post(path, `{"type":"private_v6","id":"request-1"}`).into(t, &again)
	if diff := cmp.Diff(first, again); diff != "" || first.IP == "" {
		t.Errorf("the second answer differs from the first (-first +second):\n%s", diff)
	}
	if a := w.post(path, `{"type":"private_v6","id":"request-1","org_slug":"other"}`); a.code != http.StatusConflict {
		t.Errorf("another request with the same id: %d %s", a.code, a.body)
	}
	if a := w.post(path, `{"type":"private_v6","id":"not an id"}`); a.code != http.StatusUnprocessableEntity {
		t.Errorf("a malformed id: %d %s", a.code, a.body)
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	a := w.get("/v1/status")
	if a.code != http.StatusOK || strings.Contains(string(a.body), "null") {
		t.Errorf("status %d %s, expected empty lists", a.code, a.body)
	}
	w.plane.status = api.Status{
		Agent: api.AgentStatus{Name: "one"}, Revision: api.RevisionStatus{Wanted: 5, Applied: 4},
		Services: []api.ServiceStatus{{Vip: "fdaa::"}}, Drops: []api.DropStatus{{Reason: "wall", Packets: 1 << 63}},
	}
	var got api.Status
	w.get("/v1/status").into(t, &got)
	if diff := cmp.Diff(w.plane.status, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	w.plane.failure = errors.New("the maps are gone")
	if a := w.get("/v1/status"); a.code != http.StatusInternalServerError || a.failure.Status != "internal" || !strings.Contains(a.failure.Error, "the maps are gone") {
		t.Errorf("answer %d %s, expected why", a.code, a.body)
	}
}

// With wait=applied every write is answered when the data plane has it, not before.
func TestWaitApplied(t *testing.T) {
	w := newStage(t)
	for _, g := range goods {
		operation := w.operations[g.operation]
		if !g.writes {
			continue
		}
		t.Run(g.operation, func(t *testing.T) {
			nonce := ""
			if g.held {
				nonce = w.nonce()
			}
			w.plane.mu.Lock()
			w.plane.asked, w.plane.release = nil, make(chan struct{})
			w.plane.mu.Unlock()
			answered := w.later(nonce, operation.method, w.url(g, "wait=applied"), g.body)
			var asked []int64
			w.eventually("the data plane is asked", func() bool {
				w.plane.mu.Lock()
				defer w.plane.mu.Unlock()
				asked = w.plane.asked
				return len(asked) == 1
			})
			select {
			case a := <-answered:
				t.Fatalf("answered %d %s before it was applied", a.code, a.body)
			default:
			}
			close(w.plane.release)
			a := <-answered
			if a.code >= 300 || a.header.Get("Sixpn-Revision") != strconv.FormatInt(asked[0], 10) {
				t.Errorf("answer %d with revision %q, expected the one that was applied, %d", a.code, a.header.Get("Sixpn-Revision"), asked[0])
			}
			w.recover()
		})
	}
	w.plane.mu.Lock()
	w.plane.release = make(chan struct{}) // never
	w.plane.mu.Unlock()
	if a := w.post("/v1/orgs?wait=applied", `{"slug":"late"}`); a.code != http.StatusGatewayTimeout || !strings.Contains(a.failure.Error, "durable") {
		t.Errorf("answer %d %s, expected that it is durable and not applied", a.code, a.body)
	}
}

// eventually polls until a condition holds.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}
