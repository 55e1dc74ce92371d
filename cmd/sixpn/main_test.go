package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/shlex"
	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

func TestEveryCommandExplainsItself(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		if command.Name() == "help" {
			return
		}
		if command.Short == "" {
			t.Errorf("%s has no description", command.CommandPath())
		}
		// The shells' own completion commands come with long explanations.
		if command.Example == "" && command.Parent().Name() != "completion" {
			t.Errorf("%s has no example", command.CommandPath())
		}
		for _, child := range command.Commands() {
			walk(child)
		}
	}
	walk(newRoot(&cli{}))
}

// Each example is a line that the command line at least understands.
func TestExamplesParse(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		for line := range strings.Lines(command.Example) {
			line, _, _ = strings.Cut(line, " | ")
			line, _, _ = strings.Cut(line, " > ")
			words, err := shlex.Split(strings.TrimSuffix(strings.TrimSpace(line), " &"))
			must(t, err)
			if len(words) == 0 || words[0] != "sixpn" {
				continue
			}
			found, rest, err := newRoot(&cli{}).Traverse(words[1:])
			if err == nil && !found.DisableFlagParsing {
				err = found.ParseFlags(rest)
			}
			if err != nil {
				t.Errorf("example %q of %s: %v", line, command.CommandPath(), err)
			}
		}
		for _, child := range command.Commands() {
			walk(child)
		}
	}
	walk(newRoot(&cli{}))
}

func TestWrongUsage(t *testing.T) {
	t.Setenv("SIXPN_SOCKET", filepath.Join(t.TempDir(), "none"))
	for _, row := range []struct{ args, message string }{
		{"bogus", `unknown command "bogus" for "sixpn"`},
		{"machines bogus", `unknown command "bogus"`},
		{"machine lst", "did you mean"},
		{"orgs", ""}, // shows its help
		{"--bogus", "unknown flag: --bogus"},
		{"orgs create", "accepts 1 arg(s), received 0\nUsage: sixpn orgs create SLUG"},
		{"orgs create a b", "accepts 1 arg"},
		{"orgs list a", `unknown command "a"`},
		{"apps create", "accepts 1 arg"},
		{"apps list --bogus", "unknown flag: --bogus"},
		{"ips list", `required flag(s) "app" not set`},
		{"ips allocate-v6 -a web", "--private"},
		{"ips release -a web", "requires at least 1 arg"},
		{"machine run -a web", "there is no command"},
		{"machine run -a web sleep 60", `unexpected argument "sleep"`},
		{"machine run -a web a -- sleep 60", `unexpected argument "a"`},
		{"machine run -- sleep 60", `required flag(s) "app" not set`},
		{"machine run -a web --json -- sleep 60", "--json needs --detach"},
		{"machine run -a web -d -p 0:80 -- sleep 60", `"0" is no port`},
		{"machine run -a web -d -p 70000 -- sleep 60", `"70000" is no port`},
		{"machine run -a web -d -e A -- sleep 60", "expected KEY=VALUE"},
		{"machine run -a web -d -m =b -- sleep 60", "expected KEY=VALUE"},
		{"machine run -a web --mtu many -- sleep 60", "invalid argument"},
		{"machine status", "accepts 1 arg"},
		{"machine start", "requires at least 1 arg"},
		{"machine stop a --timeout -1", "expected 0 (the default) or seconds"},
		{"machine restart a --time -1", "expected 0 (the default) or seconds"},
		{"machine exec a", "expected a Machine's id and a command"},
		{"machine exec a b c", "expected a Machine's id and a command"},
		{"machine exec a b -- c", "expected a Machine's id and a command"},
		{"machine exec a --", "expected a Machine's id and a command"},
		{"machine logs a --json", "there is no --json"},
		{"machine run -a web -d --check udp:53 -- sleep 60", "expected tcp, http or https"},
		{"machine run -a web -d --kill-timeout -1 -- sleep 60", "expected 0 (the host's) or seconds"},
		{"machine run -a web -d --machine-config {", "not a Machine's configuration in JSON"},
		{"machine run -a web -d --entrypoint 'a -- sleep 60", "cannot be split into words"},
		{"machine list -m role", "expected KEY=VALUE"},
		{"machine suspend", "requires at least 1 arg"},
		{"machine kill", "requires at least 1 arg"},
		{"machine cordon", "requires at least 1 arg"},
		{"machine migrate a", `required flag(s) "to" not set`},
		{"machine migrate --to two", "accepts 1 arg"},
		{"machine update", "expected one Machine's id"},
		{"machine update a b", "expected one Machine's id"},
		{"machine update a b -- c", "expected one Machine's id"},
		{"machine attach -a web", "at least one of the flags in the group [device netns pid]"},
		{"machine attach -a web --device tap0 --pid 1", "none of the others can be"},
		{"machine attach -a web --netns /x --mac 02:00:00:00:00:01", "none of the others can be"},
		{"machine attach -a web --device tap0 -- sleep 60", `unknown command "sleep"`},
		{"machine detach", "requires at least 1 arg"},
		{"machine leases view", "requires at least 1 arg"},
		{"apps show", "accepts 1 arg"},
		{"apps move web", "--org, --network or both"},
		{"apps move web -o other", "Give --yes"},
		{"apps destroy", "requires at least 1 arg"},
		{"apps destroy web", "Give --yes"},
		{"orgs delete acme", "Give --yes"},
		{"hosts show", "accepts 1 arg"},
		{"hosts remove a", "Give --yes"},
		{"hosts invite fra", `unknown command "fra"`},
		{"networks create", "accepts 1 arg"},
		{"networks delete", "accepts 1 arg"},
		{"logs", `required flag(s) "app" not set`},
		{"status now", `unknown command "now"`},
	} {
		t.Run(row.args, func(t *testing.T) {
			r := sixpnRun(t, strings.Fields(row.args)...)
			if row.message == "" {
				if r.code != exitDone || !strings.Contains(r.out, "Usage:") {
					t.Errorf("exit code %d, output %q, expected help", r.code, r.out)
				}
				return
			}
			if r.code != exitUsage || !strings.Contains(r.err, row.message) || !strings.Contains(r.err, "--help") || r.out != "" {
				t.Errorf("exit code %d, stderr %q, output %q, expected 2 and %q", r.code, r.err, r.out, row.message)
			}
		})
	}
}

func TestNoAgent(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("SIXPN_SOCKET", filepath.Join(t.TempDir(), "environment"))
	for _, row := range []struct{ args, socket string }{
		{"status", "environment"},
		{"--socket " + none + " status", none},
		{"status --socket " + none, none},
		{"status --name absent", "/run/sixpn/absent.sock; start one with: sixpn agent --name absent"},
		{"--name absent machine run -a web --name web1 -d -- true", "/run/sixpn/absent.sock"},
	} {
		r := sixpnRun(t, strings.Fields("--wait-agent 0s "+row.args)...)
		if r.code != exitFailed || !strings.Contains(r.err, row.socket) || !strings.Contains(r.err, "start one with: sixpn agent") {
			t.Errorf("sixpn %s: exit code %d, stderr %q, expected that nobody listens on %s", row.args, r.code, r.err, row.socket)
		}
	}
	t.Setenv("SIXPN_SOCKET", "")
	if got := (&cli{name: api.DefaultName}).agentSocket(); got != "/run/sixpn/default.sock" {
		t.Errorf("socket %s when nothing is said", got)
	}
}

func TestOrgsAndApps(t *testing.T) {
	newWorld(t)
	if r := sixpnRun(t, "apps", "create", "web"); r.code != exitFailed || !strings.Contains(r.err, "sixpn orgs create") {
		t.Errorf("app without an org: %+v", r)
	}
	if out := do(t, "orgs", "create", "acme"); out != "Created org acme with network default fdaa:0:1::/48\n" {
		t.Errorf("output %q", out)
	}
	if out := do(t, "apps", "create", "web"); out != "Created app web in org acme, network default\n" {
		t.Errorf("output %q", out)
	}
	org := asJSON[api.Org](t, "orgs", "create", "other")
	if org.Slug != "other" {
		t.Errorf("org %+v", org)
	}
	if r := sixpnRun(t, "apps", "create", "two"); r.code != exitUsage || !strings.Contains(r.err, "--org") {
		t.Errorf("app when there are two orgs: %+v", r)
	}
	app := asJSON[api.App](t, "apps", "create", "shop", "-o", "other")
	if app.Name != "shop" || app.Organization.Slug != "other" {
		t.Errorf("app %+v", app)
	}
	want := []string{
		"NAME SLUG NETWORKS CREATED", "acme acme default fdaa:0:1::/48 just now", "other other default fdaa:0:2::/48 just now",
	}
	if diff := cmp.Diff(want, columns(do(t, "orgs", "list"))); diff != "" {
		t.Errorf("orgs list (-want +got):\n%s", diff)
	}
	want = []string{"NAME OWNER NETWORK STATUS MACHINES", "shop other default pending 0", "web acme default pending 0"}
	if diff := cmp.Diff(want, columns(do(t, "apps", "list"))); diff != "" {
		t.Errorf("apps list (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:2], columns(do(t, "apps", "ls", "--org", "other"))); diff != "" {
		t.Errorf("apps list of an org (-want +got):\n%s", diff)
	}
	if orgs := asJSON[[]api.Org](t, "orgs", "list"); len(orgs) != 2 {
		t.Errorf("orgs %+v", orgs)
	}
	for args, message := range map[string]string{
		"orgs create acme":              "exists already",
		"orgs create No_Good":           "expected",
		"apps create web -o other":      "taken",
		"apps create x -o nobody":       "sixpn orgs create",
		"apps list -o nobody":           "sixpn orgs list",
		"ips list -a none":              "sixpn apps create",
		"machine list -a none":          "sixpn apps create",
		"machine run -a none -- true":   "sixpn apps create",
		"machine status 00000000000000": "sixpn machine list",
	} {
		r := sixpnRun(t, strings.Fields(args)...)
		if r.code != exitFailed || !strings.Contains(r.err, message) || r.out != "" {
			t.Errorf("sixpn %s: %+v, expected 1 and %q", args, r, message)
		}
	}
}

func TestIPs(t *testing.T) {
	newWorld(t)
	do(t, "orgs", "create", "acme")
	do(t, "orgs", "create", "other")
	do(t, "apps", "create", "web", "-o", "acme")
	want := []string{"VERSION IP TYPE REGION NETWORK CREATED", "v6 fdaa:0:1:0:1::1 private global acme/default just now"}
	if diff := cmp.Diff(want, columns(do(t, "ips", "allocate-v6", "--private", "-a", "web"))); diff != "" {
		t.Errorf("ips allocate-v6 (-want +got):\n%s", diff)
	}
	ip := asJSON[api.IPAssignment](t, "ips", "allocate-v6", "--private", "-a", "web", "--org", "other")
	if !strings.HasPrefix(ip.IP, "fdaa:0:2:0:1::") {
		t.Errorf("address %+v, expected one of the other org's network", ip)
	}
	want = append(want, "v6 "+ip.IP+" private global other/default just now")
	if diff := cmp.Diff(want, columns(do(t, "ips", "list", "-a", "web"))); diff != "" {
		t.Errorf("ips list (-want +got):\n%s", diff)
	}
	if out := do(t, "ips", "release", "fdaa:0:1:0:1::1", ip.IP, "-a", "web"); strings.Count(out, "Released") != 2 {
		t.Errorf("output %q", out)
	}
	if out := do(t, "ips", "list", "-a", "web", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("output %q, expected an empty list", out)
	}
	if r := sixpnRun(t, "ips", "release", ip.IP, "-a", "web"); r.code != exitFailed {
		t.Errorf("released twice: %+v", r)
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	w.status = api.Status{
		Agent:    api.AgentStatus{Name: "one", Host: "0:3", HostName: "h", Region: "ams", Version: "v1", Pid: 7, Message: "the store is away"},
		Revision: api.RevisionStatus{Wanted: 9, Applied: 8},
		Ports:    []api.PortStatus{{Device: "m1", Kind: "machine", App: "web", MachineID: "1", Address: "fdaa::2", MTU: 1420, RxPackets: 1, TxPackets: 2, Dropped: 3}},
		Services: []api.ServiceStatus{{Vip: "fdaa::1", App: "web", Protocol: "tcp", FirstPort: 80, LastPort: 90, Action: "balance", CrossNetwork: true,
			Backends: []api.BackendStatus{{Flows: 2}, {Flows: 3}}, Draining: 1}},
		Drops: []api.DropStatus{{Reason: "other_network", Packets: 4}},
	}
	out := columns(do(t, "status"))
	for _, want := range []string{
		"Host: h, 0:3, region ams", "Revision: 8 applied, 9 wanted", "Trouble: the store is away",
		"m1 machine web 1 fdaa::2 1420 1 2 3", "fdaa::1 80-90/tcp web balance, cross-network 2 1 5", "other_network 4",
	} {
		if !strings.Contains(strings.Join(out, "\n"), want) {
			t.Errorf("output %q, expected a line %q", out, want)
		}
	}
	got := asJSON[api.Status](t, "status")
	if diff := cmp.Diff(w.status, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestPorts(t *testing.T) {
	services, err := parsePorts([]string{"80:8080/tcp", "443:8080/tcp:tls:http", "53/udp", "8000-8010:8080", "9000"})
	must(t, err)
	want := []api.Service{
		{Protocol: "tcp", InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}, {Port: 443, Handlers: []string{"tls", "http"}}, {StartPort: 8000, EndPort: 8010}}},
		{Protocol: "udp", InternalPort: 53, Ports: []api.ServicePort{{Port: 53}}},
		{Protocol: "tcp", InternalPort: 9000, Ports: []api.ServicePort{{Port: 9000}}},
	}
	if diff := cmp.Diff(want, services); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	for spec, message := range map[string]string{
		"": "no port", "0": "no port", "65536": "no port", "-1:80": "no port", "80:": "no port", "80:70000": "no port",
		"80/sctp": "expected tcp or udp", "90-80:80": "ends before it begins", "80-90": "needs the one port", "80-:80": "no port", "http": "no port",
	} {
		if _, err := parsePorts([]string{spec}); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("port %q: error %v, expected %q", spec, err, message)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := do(t, "completion", shell); !strings.Contains(out, "sixpn") {
			t.Errorf("completion for %s: %q", shell, out)
		}
	}
}

// stateOf is what the store says about a Machine.
func (w *world) stateOf(id string) state.MachineState { return w.store.Snapshot().Machines[id].State }

func idOf(t *testing.T, out string) string {
	t.Helper()
	var id string
	if _, err := fmt.Sscanf(columns(out)[0], "Machine ID: %s", &id); err != nil {
		t.Fatalf("no id in %q: %v", out, err)
	}
	return id
}
