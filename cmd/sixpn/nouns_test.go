package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

func TestOrgsShowAndDelete(t *testing.T) {
	newWorldWithApps(t)
	do(t, "orgs", "create", "other")
	want := []string{"Name: acme", "Slug: acme", "Created: just now", "", "NETWORK PREFIX CREATED", "default fdaa:0:1::/48 just now"}
	if diff := cmp.Diff(want, columns(do(t, "orgs", "show", "acme"))); diff != "" {
		t.Errorf("orgs show (-want +got):\n%s", diff)
	}
	if org := asJSON[api.Org](t, "orgs", "show", "other"); org.Slug != "other" {
		t.Errorf("orgs show: %+v", org)
	}
	if r := sixpnRun(t, "orgs", "delete", "acme", "-y"); r.code != exitFailed || !strings.Contains(r.err, "app") {
		t.Errorf("delete of an org with apps: %+v", r)
	}
	if out := do(t, "orgs", "delete", "other", "--yes"); out != "Deleted org other\n" {
		t.Errorf("orgs delete: %q", out)
	}
	if r := sixpnRun(t, "orgs", "show", "other"); r.code != exitFailed {
		t.Errorf("show of what is deleted: %+v", r)
	}
}

func TestNetworks(t *testing.T) {
	newWorldWithApps(t)
	if out := do(t, "networks", "create", "staging"); out != "Created network staging fdaa:0:2::/48 of org acme\n" {
		t.Errorf("networks create: %q", out)
	}
	do(t, "networks", "create", "empty", "-o", "acme")
	do(t, "apps", "create", "lab", "--network", "staging")
	want := []string{"NETWORK PREFIX CREATED", "default fdaa:0:1::/48 just now", "empty fdaa:0:3::/48 just now", "staging fdaa:0:2::/48 just now"}
	if diff := cmp.Diff(want, columns(do(t, "networks", "list"))); diff != "" {
		t.Errorf("networks list (-want +got):\n%s", diff)
	}
	if networks := asJSON[[]api.Network](t, "networks", "list", "-o", "acme"); len(networks) != 3 {
		t.Errorf("networks list: %+v", networks)
	}
	if out := do(t, "networks", "delete", "empty"); out != "Deleted network empty of org acme\n" {
		t.Errorf("networks delete: %q", out)
	}
	for _, name := range []string{"default", "staging", "empty"} {
		if r := sixpnRun(t, "networks", "delete", name); r.code != exitFailed {
			t.Errorf("delete of network %s: %+v", name, r)
		}
	}
	do(t, "orgs", "create", "other")
	if r := sixpnRun(t, "networks", "list"); r.code != exitUsage || !strings.Contains(r.err, "--org") {
		t.Errorf("networks of one of two orgs: %+v", r)
	}
}

func TestAppsShow(t *testing.T) {
	newWorldWithApps(t)
	id := runs(t, "--process-group", "worker", "--", "run")
	do(t, "ips", "allocate-v6", "--private", "-a", "web")
	out := do(t, "apps", "show", "web")
	for _, want := range []string{"Owner: acme", "Status: deployed", "Hostname: web.internal", "Flycast: fdaa:0:1:0:1::1", "worker " + id + " ams started"} {
		if !strings.Contains(strings.Join(columns(out), "\n"), want) {
			t.Errorf("apps show %q, expected %q", out, want)
		}
	}
	if same := do(t, "status", "-a", "web"); same != out {
		t.Errorf("status -a: %q, expected as apps show: %q", same, out)
	}
	s := asJSON[appStatus](t, "status", "--app", "web")
	if s.Name != "web" || len(s.IPs) != 1 || len(s.Machines) != 1 {
		t.Errorf("status -a: %+v", s)
	}
	if rows := columns(do(t, "ips", "private", "-a", "web")); len(rows) != 2 || !strings.HasPrefix(rows[1], id+" ams fdaa:0:1:") {
		t.Errorf("ips private: %q", rows)
	}
}

func TestAppsMove(t *testing.T) {
	w := newWorldWithApps(t)
	id, stopped := runs(t, "--", "run"), runs(t, "--", "run")
	do(t, "machine", "stop", stopped)
	do(t, "orgs", "create", "other")
	before := w.store.Snapshot().Machines[id].Addr()
	if r := sixpnRun(t, "apps", "move", "web", "-y"); r.code != exitUsage || !strings.Contains(r.err, "--org, --network or both") {
		t.Errorf("move to nowhere: %+v", r)
	}
	if out := do(t, "apps", "move", "web", "--org", "other", "--yes"); out != "Moved app web to org other, network default\n" {
		t.Errorf("apps move: %q", out)
	}
	if m := w.store.Snapshot().Machines[id]; m.Addr() == before || m.State != state.Started {
		t.Errorf("Machine %s, address %s after the move, expected it started with another than %s", m.State, m.Addr(), before)
	}
	if w.stateOf(stopped) != state.Stopped {
		t.Errorf("a Machine that was stopped is %s", w.stateOf(stopped))
	}
	if app := asJSON[api.App](t, "apps", "move", "db", "-o", "other", "-y"); app.Organization.Slug != "other" {
		t.Errorf("apps move: %+v", app)
	}
}

func TestAppsDestroy(t *testing.T) {
	w := newWorldWithApps(t)
	runs(t, "--", "run")
	if r := sixpnRun(t, "apps", "destroy", "web"); r.code != exitUsage || !strings.Contains(r.err, "--yes") {
		t.Errorf("destroy without being asked: %+v", r)
	}
	if _, there := w.store.Snapshot().Apps["web"]; !there {
		t.Error("app web is gone though nobody said yes")
	}
	if out := do(t, "apps", "destroy", "web", "db", "--yes"); out != "Destroyed app web\nDestroyed app db\n" {
		t.Errorf("apps destroy: %q", out)
	}
	if s := w.store.Snapshot(); len(s.Apps)+len(s.Machines) != 0 {
		t.Errorf("%d apps and %d Machines are left", len(s.Apps), len(s.Machines))
	}
}

func TestConfirm(t *testing.T) {
	for answer, yes := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false, "": false, "yesterday\n": false} {
		var errs bytes.Buffer
		c := &cli{in: strings.NewReader(answer), err: &errs}
		if err := c.ask("Destroy it?"); (err == nil) != yes || !strings.Contains(errs.String(), "Destroy it? [y/N]") {
			t.Errorf("answer %q: %v, asked %q", answer, err, errs.String())
		}
	}
}

func TestPlatformRegions(t *testing.T) {
	w := newWorld(t)
	_, revision, err := w.store.JoinHost(t.Context(), state.NewHost{Name: "gate", Region: "lhr", Token: "gate", Gateway: true})
	must(t, err)
	_, err = w.store.Wait(t.Context(), revision-1)
	must(t, err)
	rows := columns(do(t, "platform", "regions"))
	if rows[0] != "NAME CODE GATEWAY LATITUDE LONGITUDE DISTANCE ROUND TRIP THIS HOST" ||
		!strings.Contains(strings.Join(rows, "\n"), "Amsterdam, Netherlands ams no 52.31 4.76 0 km ✓") ||
		!strings.Contains(strings.Join(rows, "\n"), "Frankfurt, Germany fra no 50.03 8.57 367 km") ||
		!strings.Contains(strings.Join(rows, "\n"), " lhr yes ") {
		t.Errorf("platform regions: %q", rows)
	}
	if list := asJSON[api.RegionList](t, "platform", "regions"); list.Nearest != "ams" || len(list.Regions) != len(rows)-1 {
		t.Errorf("platform regions: nearest %s, %d of them", list.Nearest, len(list.Regions))
	}
}

// forgetApplied is which revisions were waited for since it was called last.
func (w *world) forgetApplied() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	waited := w.applied
	w.applied = nil
	return waited
}

// With --wait every command that changes something waits for the data plane.
func TestWait(t *testing.T) {
	w := newWorldWithApps(t)
	w.status.Revision = api.RevisionStatus{Wanted: 1, Applied: 1}
	id := runs(t, "--", "run")
	w.host2(t)
	for _, args := range []string{
		"orgs create o", "orgs delete o -y", "networks create n", "networks delete n", "apps create a -o acme", "apps destroy a -y",
		"hosts invite", "hosts drain one", "hosts undrain one", "hosts rotate-key one", "hosts remove two -y",
		"ips allocate-v6 --private -a web", "ips release fdaa:0:1:0:1::1 -a web",
		"machine run -a web -d -- run", "machine attach -a web --device tap0", "machine stop " + id, "machine start " + id, "machine restart " + id,
		"machine suspend " + id, "machine resume " + id, "machine cordon " + id, "machine uncordon " + id, "machine migrate " + id + " --to one", "machine update " + id + " -e A=1",
		"machine destroy -f " + id,
	} {
		w.forgetApplied()
		words := strings.Fields(args)
		do(t, append(words[:2:2], append([]string{"--wait"}, words[2:]...)...)...)
		if len(w.forgetApplied()) == 0 {
			t.Errorf("sixpn %s --wait did not wait for the data plane", args)
		}
	}
	do(t, "orgs", "create", "p")
	runs(t, "--", "run")
	if waited := w.forgetApplied(); len(waited) != 0 {
		t.Errorf("without --wait it was waited for %v", waited)
	}
	// Every command that can change something has the flag.
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		if regexp.MustCompile(`^sixpn (orgs|apps|networks|hosts|ips|machine) `).MatchString(command.CommandPath()) && !command.HasSubCommands() {
			_, reads := map[string]bool{"list": true, "show": true, "status": true, "logs": true, "exec": true, "private": true, "view": true, "kill": true}[command.Name()]
			if has := command.Flags().Lookup("wait") != nil; has == reads {
				t.Errorf("%s has --wait: %t", command.CommandPath(), has)
			}
		}
		for _, child := range command.Commands() {
			walk(child)
		}
	}
	walk(newRoot(&cli{}))
}

func TestChecks(t *testing.T) {
	checks, err := parseChecks([]string{
		"tcp:5432", "http:8080/healthz?deep=1,interval=5s,timeout=1s,grace=10s,method=HEAD", "alive=https:8443,insecure",
	})
	must(t, err)
	second := api.DurationValue(1e9)
	want := map[string]api.HealthCheck{
		"tcp-5432":  {Type: "tcp", Port: 5432},
		"http-8080": {Type: "http", Port: 8080, Path: "/healthz?deep=1", Interval: 5 * second, Timeout: second, GracePeriod: 10 * second, Method: "HEAD"},
		"alive":     {Type: "http", Port: 8443, Protocol: "https", TLSSkipVerify: true},
	}
	if diff := cmp.Diff(want, checks); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	for spec, message := range map[string]string{
		"": "expected tcp, http or https", "udp:53": "expected tcp, http or https", "tcp:0": "no port", "tcp:": "no port", "tcp:80/x": "has no path",
		"http:80,interval=often": "expected a duration", "http:80,interval=0s": "expected a duration", "tcp:80,method=GET": "no option", "http:80,insecure": "no option", "http:80,": "no option",
	} {
		if _, err := parseChecks([]string{spec}); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("check %q: error %v, expected %q", spec, err, message)
		}
	}
	if _, err := parseChecks([]string{"tcp:80", "tcp:80"}); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("two of one name: %v", err)
	}
}
