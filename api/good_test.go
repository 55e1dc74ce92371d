package api_test

import (
	"context"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// good is a request that an operation grants.
type good struct {
	operation    string
	query, body  string
	code         int
	path         map[string]string // parameters that differ from those of every request
	held, writes bool              // by a lease; something durable
}

// goods has each operation of the document, those that destroy at the end.
var goods = []good{
	{operation: "GetDocument", code: 200},
	{operation: "GetStatus", code: 200},
	{operation: "ListRegions", code: 200},
	{operation: "ListHosts", code: 200},
	{operation: "GetStore", code: 200},
	{operation: "ExportStore", code: 200},
	{operation: "GetHost", code: 200},
	{operation: "ProbeHost", path: map[string]string{"host_name": "two"}, code: 200},
	{operation: "CreateInvitation", body: `{"region":"fra","expires_in":"5m"}`, code: 201, writes: true},
	{operation: "DrainHost", code: 200, writes: true},
	{operation: "UndrainHost", code: 200, writes: true},
	{operation: "RotateHostKey", code: 200, writes: true},
	{operation: "ListOrgs", code: 200},
	{operation: "CreateOrg", body: `{"slug":"new","name":"New Inc."}`, code: 201, writes: true},
	{operation: "GetOrg", code: 200},
	{operation: "CreateNetwork", body: `{"name":"lab"}`, code: 201, writes: true},
	{operation: "ListNetworks", code: 200},
	{operation: "Dig", query: "name=web.internal&type=AAAA&network=spare&host_name=one", code: 200},
	{operation: "Ping", body: `{"target":"web.internal","count":2,"interval":"10ms","timeout":"1s","size":0,"network":"spare"}`, code: 200},
	{operation: "ListOrgMachines", query: "limit=1&summary=true&state=started,stopped&region=ams&include_deleted=true", code: 200},
	{operation: "ListApps", query: "org_slug=acme", code: 200},
	{operation: "CreateApp", body: `{"app_name":"new","org_slug":"acme","network":"spare"}`, code: 201, writes: true},
	{operation: "GetApp", code: 200},
	{operation: "ListMachines", query: "metadata.role=db&region=ams&state=started&include_deleted=true&summary=false", code: 200},
	{operation: "CreateMachine", body: everyMember, code: 200, writes: true},
	{operation: "GetMachine", code: 200},
	{operation: "GetMachineLive", code: 200},
	{operation: "UpdateMachine", body: `{"config":{"init":{"exec":["sleep","61"]}},"lease_ttl":60}`, code: 200, writes: true},
	{operation: "ReleaseLease", code: 200, held: true, writes: true},
	{operation: "AcquireLease", query: "ttl=60", body: `{"description":"mine","owner":"me"}`, code: 201, writes: true},
	{operation: "GetLease", code: 200, held: true},
	{operation: "CordonMachine", code: 200, held: true, writes: true},
	{operation: "UncordonMachine", code: 200, held: true, writes: true},
	{operation: "SetMetadataKey", body: `{"value":"web"}`, code: 204, held: true, writes: true},
	{operation: "GetMetadataKey", code: 200},
	{operation: "GetMetadata", code: 200},
	{operation: "DeleteMetadataKey", code: 204, held: true, writes: true},
	{operation: "SignalMachine", body: `{"signal":"hup"}`, code: 200, held: true},
	{operation: "ExecMachine", body: `{"cmd":"true","timeout":5,"stdin":"","encoding":"base64"}`, code: 200},
	{operation: "ListEvents", query: "limit=3", code: 200},
	{operation: "MachineLogs", query: "follow=false", code: 200},
	{operation: "WaitMachine", query: "state=started&timeout=1", code: 200},
	{operation: "MigrateMachine", body: `{"host_name":"one"}`, code: 200, held: true, writes: true}, // where it is already
	{operation: "SuspendMachine", code: 200, held: true, writes: true},
	{operation: "StartMachine", code: 200, held: true, writes: true},
	{operation: "RestartMachine", query: "timeout=3s&signal=SIGINT&force_stop=false", code: 200, held: true, writes: true},
	{operation: "StopMachine", body: `{"signal":"SIGTERM","timeout":"5s"}`, code: 200, held: true, writes: true},
	{operation: "DestroyMachine", query: "force=true", code: 200, held: true, writes: true},
	{operation: "CreateIPAssignment", body: `{"type":"private_v6","org_slug":"other","network":"default","region":"global"}`, code: 200, writes: true},
	{operation: "ListIPAssignments", code: 200},
	{operation: "GetIPAssignment", code: 200},
	{operation: "DeleteIPAssignment", code: 204, writes: true},
	{operation: "MoveApp", body: `{"org_slug":"other"}`, code: 200, path: map[string]string{"app_name": "idle"}, writes: true},
	{operation: "DestroyApp", query: "force=true", code: 202, writes: true},
	{operation: "DeleteNetwork", code: 200, path: map[string]string{"network": "unused"}, writes: true},
	{operation: "RemoveHost", query: "force=false", code: 200, path: map[string]string{"host_name": "two"}, writes: true},
	{operation: "DeleteOrg", code: 200, path: map[string]string{"org_slug": "empty"}, writes: true},
}

// everyMember is the body of a new Machine with all that it can have.
const everyMember = `{"id":"0123456789abcd","name":"one","region":"ams","skip_launch":true,"lease_ttl":60,"skip_secrets":true,"config":{
	"init":{"exec":["sleep","60"]},"env":{"A":"b"},"metadata":{"role":"db","fly_process_group":"worker"},
	"restart":{"policy":"on-failure","max_retries":3},"auto_destroy":true,"workdir":"/tmp","mtu":1400,
	"stop_config":{"signal":"SIGINT","timeout":5000000000},
	"image":"registry.example:5000/nginx:1@sha256:abc","guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256},
	"dns":{"skip_registration":true,"nameservers":["fdaa::3"],"searches":["internal"],"options":[{"name":"ndots","value":"2"}],"hostname":"one"},
	"checks":{"alive":{"type":"tcp","port":8080,"interval":"10s","timeout":"1s","grace_period":"5s"}},
	"services":[
		{"protocol":"tcp","internal_port":8080,"ports":[{"port":80},{"start_port":8000,"end_port":8010}],
		 "concurrency":{"type":"connections","soft_limit":10,"hard_limit":20},
		 "autostop":"suspend","autostart":true,"min_machines_running":1,"force_instance_key":null,
		 "checks":[{"type":"http","interval":"10s","timeout":"2s","grace_period":"5s","method":"GET","path":"/up","protocol":"https",
			"tls_skip_verify":true,"tls_server_name":"web.example","headers":[{"name":"Host","values":["web.example"]}]}]},
		{"protocol":"udp","internal_port":53,"ports":[{"port":53}]}]}}`

// stage is a world in which all of goods are granted, in their order.
type stage struct {
	*world
	machine    state.Machine
	parameters map[string]string
	operations map[string]described
}

// described is an operation as the document has it.
type described struct {
	method, route string
	*openapi3.Operation
	shared openapi3.Parameters // of its path
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{world: newWorld(t)}
	machine, ip := s.seed()
	ctx := t.Context()
	for _, org := range []string{"empty"} {
		_, _, err := s.store.CreateOrg(ctx, org, org)
		must(t, err)
	}
	for _, network := range []string{"spare", "unused"} {
		_, _, err := s.store.CreateNetwork(ctx, "acme", network)
		must(t, err)
	}
	_, _, err := s.store.RegisterHost(ctx, "two", "fra", 0)
	must(t, err)
	_, revision, err := s.store.CreateApp(ctx, "idle", "acme", "")
	must(t, err)
	s.seen(revision)
	s.machine = machine
	s.parameters = map[string]string{
		"host_name": "one", "org_slug": "acme", "network": "spare", "app_name": "web", "machine_id": machine.ID, "key": "role", "ip": ip.String(),
	}
	s.machines.exec = func(context.Context, string, api.Command) (int, error) { return 0, nil }
	s.machines.signal = func(string, syscall.Signal) error { return nil }
	s.operations = operations(t)
	return s
}

// operations is those of the document, by id.
func operations(t *testing.T) map[string]described {
	t.Helper()
	loaded, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	must(t, err)
	found := map[string]described{}
	for route, item := range loaded.Paths.Map() {
		for method, operation := range item.Operations() {
			found[operation.OperationID] = described{method, route, operation, item.Parameters}
		}
	}
	return found
}

// parametersIn is an operation's parameters in the path, the query or the header.
func (d described) parametersIn(place string) []*openapi3.Parameter {
	var found []*openapi3.Parameter
	for _, list := range []openapi3.Parameters{d.shared, d.Parameters} {
		for _, p := range list {
			if p.Value.In == place {
				found = append(found, p.Value)
			}
		}
	}
	return found
}

// url is where a request goes, more being added to its query.
func (s *stage) url(g good, more string) string {
	route := s.operations[g.operation].route
	for name, value := range s.parameters {
		if other, ok := g.path[name]; ok {
			value = other
		}
		route = strings.ReplaceAll(route, "{"+name+"}", value)
	}
	if query := strings.Trim(g.query+"&"+more, "&"); query != "" {
		route += "?" + query
	}
	return route
}

// nonce is that of the lease in force, empty if there is none.
func (s *stage) nonce() string {
	if l := s.world.machine(s.machine.ID).Lease; l != nil {
		return l.Nonce
	}
	return ""
}

// grant asks for what must be granted.
func (s *stage) grant(t *testing.T, g good, more string) answer {
	t.Helper()
	nonce := ""
	if g.held {
		nonce = s.nonce()
	}
	a := s.holding(nonce, s.operations[g.operation].method, s.url(g, more), contentType(g.body), g.body)
	if a.code != g.code {
		t.Fatalf("answer %d %s, expected %d", a.code, a.body, g.code)
	}
	s.recover()
	return a
}

// recover plays the host, which starts what is to be.
func (s *stage) recover() {
	s.t.Helper()
	if m, ok := s.store.Snapshot().Machines[s.machine.ID]; ok && m.State != state.Started && m.Desired == state.Started {
		s.become(m.ID, state.Started, nil)
	}
}

func TestEveryOperation(t *testing.T) {
	s := newStage(t)
	untested := operations(t)
	for _, g := range goods {
		if _, ok := untested[g.operation]; !ok {
			t.Fatalf("%s is not in the document, or twice in the table", g.operation)
		}
		delete(untested, g.operation)
		t.Run(g.operation, func(t *testing.T) {
			before := s.revision()
			a := s.grant(t, g, "")
			revision := a.header.Get("Sixpn-Revision")
			if g.writes == (revision == "") {
				t.Errorf("revision %q of an operation of which it is %t that it writes", revision, g.writes)
			}
			if now := s.revision(); !g.writes && now != before {
				t.Errorf("revision %d after what writes nothing, expected %d", now, before)
			}
		})
	}
	for operation := range untested {
		t.Errorf("%s has no request in the table", operation)
	}
}

// The document that is served is the one that the package is made from.
func TestDocumentIsServed(t *testing.T) {
	w := newWorld(t)
	a := w.get("/v1/openapi.yaml")
	loaded, err := openapi3.NewLoader().LoadFromData(a.body)
	if err != nil || a.code != http.StatusOK {
		t.Fatalf("answer %d, error %v", a.code, err)
	}
	if len(loaded.Paths.Map()) != len(w.paths()) {
		t.Errorf("%d paths are served, expected %d", len(loaded.Paths.Map()), len(w.paths()))
	}
}

// paths is the routes of the document.
func (w *world) paths() map[string]bool {
	routes := map[string]bool{}
	for _, o := range operations(w.t) {
		routes[o.route] = true
	}
	return routes
}
