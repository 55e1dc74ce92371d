package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

func newWorldWithApps(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	do(t, "orgs", "create", "acme")
	do(t, "apps", "create", "web")
	do(t, "apps", "create", "db")
	return w
}

func TestMachineRunDetached(t *testing.T) {
	w := newWorldWithApps(t)
	m := asJSON[api.Machine](t, "machine", "run", "-a", "web", "-r", "fra", "-n", "one", "--process-group", "worker",
		"-m", "role=db", "-m", "empty=", "-e", "A=b=c", "-p", "80:8080/tcp", "-p", "53:53/udp", "--restart", "on-failure",
		"--max-retries", "2", "--workdir", "/tmp", "--mtu", "1400", "--rm", "-d", "--", "run", "-a", "--json", "--", "x")
	if m.State != "started" || m.Name != "one" || m.Region != "fra" || !strings.HasPrefix(m.PrivateIP, "fdaa:0:1:") {
		t.Errorf("Machine %+v", m)
	}
	want := api.MachineConfig{
		Init: api.Init{Exec: []string{"run", "-a", "--json", "--", "x"}}, Env: map[string]string{"A": "b=c"},
		Metadata: map[string]string{"fly_process_group": "worker", "role": "db", "empty": ""},
		Restart:  api.Restart{Policy: "on-failure", MaxRetries: 2}, AutoDestroy: true, Workdir: "/tmp", MTU: 1400,
		Services: []api.Service{
			{Protocol: "tcp", InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}}},
			{Protocol: "udp", InternalPort: 53, Ports: []api.ServicePort{{Port: 53}}},
		},
	}
	if diff := cmp.Diff(want, m.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	id := idOf(t, do(t, "machine", "run", "--app", "web", "--detach", "--", "run"))
	if w.stateOf(id) != state.Started {
		t.Errorf("Machine is %s", w.stateOf(id))
	}
	// One that is through already was started too.
	if id := idOf(t, do(t, "machine", "run", "--app", "web", "--detach", "--", "exit", "0")); id == "" {
		t.Error("there is no id")
	}
	r := sixpnRun(t, "machine", "run", "-a", "web", "-d", "--", "fail", "it", "is", "not", "there")
	if r.code != exitFailed || !strings.Contains(r.err, "failed: it is not there; see: sixpn machine logs") {
		t.Errorf("run of what cannot start: %+v", r)
	}
	if r := sixpnRun(t, "machine", "run", "-a", "web", "-d", "-n", "one", "--", "run"); r.code != exitFailed || !strings.Contains(r.err, "one") {
		t.Errorf("a taken name: %+v", r)
	}
}

// Attached, the command line is as if it were the Machine's command.
func TestMachineRunAttached(t *testing.T) {
	w := newWorldWithApps(t)
	for _, row := range []struct {
		command string
		code    int
		out     string
	}{
		{"exit 0 hello", 0, "0 hello\n"},
		{"exit 42 hello", 42, "42 hello\n"},
		{"exit 137", 137, "137\n"},
	} {
		r := sixpnRun(t, append([]string{"machine", "run", "-a", "web", "--"}, strings.Fields(row.command)...)...)
		if r.code != row.code || r.out != row.out {
			t.Errorf("run %s: %+v, expected code %d and output %q", row.command, r, row.code, row.out)
		}
	}
	before := len(w.store.Snapshot().Machines)
	if r := sixpnRun(t, "machine", "run", "-a", "web", "--rm", "--", "exit", "5"); r.code != 5 {
		t.Errorf("run --rm: %+v", r)
	}
	w.eventually("the Machine is removed", func(s *state.Snapshot) bool { return len(s.Machines) == before })
	if r := sixpnRun(t, "machine", "run", "-a", "web", "--", "fail", "no", "such", "file"); r.code != exitFailed || !strings.Contains(r.err, "no such file") {
		t.Errorf("run of what cannot start: %+v", r)
	}
}

func TestMachineRunInterrupted(t *testing.T) {
	w := newWorldWithApps(t)
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, strings.Fields("machine run -a web -- run"), nil, &out, &errs) }()
	w.eventually("the Machine runs", func(s *state.Snapshot) bool {
		for _, m := range s.Machines {
			return m.State == state.Started
		}
		return false
	})
	interrupt()
	if code := <-ended; code != exitInterrupted || !strings.Contains(errs.String(), "goes on; stop it with: sixpn machine stop") {
		t.Errorf("exit code %d, stderr %q, expected 130 and that it goes on", code, errs.String())
	}
	for _, m := range w.store.Snapshot().Machines {
		if m.Desired != state.Started {
			t.Errorf("Machine %+v, expected it to go on", m)
		}
	}
}

// eventually waits for a snapshot.
func (w *world) eventually(what string, condition func(*state.Snapshot) bool) {
	w.t.Helper()
	snapshot := w.store.Snapshot()
	for !condition(snapshot) {
		var err error
		if snapshot, err = w.store.Wait(w.t.Context(), snapshot.Revision); err != nil {
			w.t.Fatalf("waited in vain until %s: %v", what, err)
		}
	}
}

func TestMachineLife(t *testing.T) {
	w := newWorldWithApps(t)
	web := idOf(t, do(t, "machine", "run", "-a", "web", "-d", "-p", "80:8080", "--", "run", "hello"))
	db := idOf(t, do(t, "machine", "run", "-a", "db", "-r", "fra", "-d", "--", "run"))

	rows := columns(do(t, "machine", "list"))
	if len(rows) != 3 || rows[0] != "ID NAME APP STATE CHECKS REGION IP ADDRESS CREATED" || !strings.Contains(rows[1], "db started fra fdaa:0:1:") || !strings.Contains(rows[2], web) {
		t.Errorf("machine list: %q", rows)
	}
	if out := do(t, "machine", "list", "-a", "web", "-q"); out != web+"\n" {
		t.Errorf("machine list -q: %q", out)
	}
	if machines := asJSON[[]api.Machine](t, "machine", "list", "-r", "fra"); len(machines) != 1 || machines[0].ID != db {
		t.Errorf("machines of a region: %+v", machines)
	}
	status := strings.Join(columns(do(t, "machine", "status", web)), "\n")
	for _, want := range []string{"Machine ID: " + web, "App: web", "State: started", "Command: run hello", "80 tcp 8080"} {
		if !strings.Contains(status, want) {
			t.Errorf("machine status %q, expected %q", status, want)
		}
	}
	if m := asJSON[api.Machine](t, "machine", "status", web, "-a", "web"); m.ID != web {
		t.Errorf("machine status: %+v", m)
	}
	if r := sixpnRun(t, "machine", "status", web, "-a", "db"); r.code != exitFailed {
		t.Errorf("machine status in another app: %+v", r)
	}

	if out := do(t, "machine", "logs", web); out != "hello\n" {
		t.Errorf("machine logs: %q", out)
	}
	if r := sixpnRun(t, "machine", "destroy", web); r.code != exitFailed || !strings.Contains(r.err, "stop it first") {
		t.Errorf("destroy of what runs: %+v", r)
	}
	if out := do(t, "machine", "stop", web, db, "--signal", "SIGINT", "--timeout", "5"); out != web+" is stopped\n"+db+" is stopped\n" {
		t.Errorf("machine stop: %q", out)
	}
	if m := w.store.Snapshot().Machines[web]; m.Stop.Signal != "SIGINT" || m.Stop.Timeout.Seconds() != 5 {
		t.Errorf("stopped by %+v", m.Stop)
	}
	if out := do(t, "machine", "logs", web, "--follow"); out != "hello\n" {
		t.Errorf("machine logs --follow of what has ended: %q", out)
	}
	if machines := asJSON[[]api.Machine](t, "machine", "start", web); len(machines) != 1 || machines[0].State != "started" {
		t.Errorf("machine start: %+v", machines)
	}
	first := w.store.Snapshot().Machines[web].InstanceID
	if out := do(t, "machine", "restart", web); out != web+" is started\n" || w.store.Snapshot().Machines[web].InstanceID == first {
		t.Errorf("machine restart: %q, instance %s", out, first)
	}
	if out := do(t, "machine", "destroy", "--force", web); out != web+" is destroyed\n" {
		t.Errorf("machine destroy: %q", out)
	}
	do(t, "machine", "rm", db)
	if out := do(t, "machine", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("machine list: %q, expected an empty list", out)
	}
	for _, verb := range []string{"start", "stop", "restart", "destroy", "status", "logs"} {
		if r := sixpnRun(t, "machine", verb, web); r.code != exitFailed || !strings.Contains(r.err, "no Machine") {
			t.Errorf("%s of what is gone: %+v", verb, r)
		}
	}
	id := idOf(t, do(t, "machine", "run", "-a", "web", "-d", "-w", "0", "--", "fail", "no"))
	if r := sixpnRun(t, "machine", "start", id); r.code != exitFailed || !strings.Contains(r.err, "failed, not started: no") {
		t.Errorf("start of what fails: %+v", r)
	}
}

func TestMachineExec(t *testing.T) {
	newWorldWithApps(t)
	id := idOf(t, do(t, "machine", "run", "-a", "web", "-d", "--", "run"))
	for _, row := range []struct {
		stdin string
		args  []string
		code  int
		out   string
	}{
		{"", []string{id, "a"}, 0, "[\"a\"] \n"},
		{"", []string{id, "a 'b c'"}, 1, "[\"a\" \"b c\"] \n"},
		{"", []string{id, "--", "a", "-x", "--json"}, 2, "[\"a\" \"-x\" \"--json\"] \n"},
		{"", []string{"-a", "web", id, "--", "a b"}, 0, "[\"a b\"] \n"},
		{"text", []string{"-i", id, "a"}, 0, "[\"a\"] text\n"},
	} {
		r := sixpnIn(t, row.stdin, append([]string{"machine", "exec"}, row.args...)...)
		if r.code != row.code || r.out != row.out || r.err != "a warning\n" {
			t.Errorf("exec %q: %+v, expected code %d and %q", row.args, r, row.code, row.out)
		}
	}
	result := asJSON[api.ExecResult](t, "machine", "exec", id, "a")
	if result.ExitCode != 0 || result.Stderr != "a warning\n" {
		t.Errorf("exec --json: %+v", result)
	}
	if r := sixpnRun(t, "machine", "exec", id, "missing"); r.code != exitFailed || !strings.Contains(r.err, "not found in PATH") {
		t.Errorf("exec of what is not there: %+v", r)
	}
}
