package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// runs starts a Machine of app web and returns its id.
func runs(t *testing.T, args ...string) string {
	t.Helper()
	return idOf(t, do(t, append([]string{"machine", "run", "-a", "web", "-d"}, args...)...))
}

func TestMachineSuspend(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "--", "run")
	if out := do(t, "machine", "suspend", id); out != id+" is suspended\n" || w.stateOf(id) != state.Suspended {
		t.Errorf("machine suspend: %q, state %s", out, w.stateOf(id))
	}
	if machines := asJSON[[]api.Machine](t, "machine", "resume", id); len(machines) != 1 || machines[0].State != "started" {
		t.Errorf("machine resume: %+v", machines)
	}
}

func TestMachineCordon(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "--", "run")
	if out := do(t, "machine", "cordon", id); out != id+" is out of Flycast\n" || !w.store.Snapshot().Machines[id].Cordoned {
		t.Errorf("machine cordon: %q", out)
	}
	if out := do(t, "machine", "status", id); !strings.Contains(out, "Cordoned:") {
		t.Errorf("machine status: %q, expected that it is cordoned", out)
	}
	if machines := asJSON[[]api.Machine](t, "machine", "uncordon", id); len(machines) != 1 || machines[0].Cordoned {
		t.Errorf("machine uncordon: %+v", machines)
	}
}

func TestMachineKill(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "--", "run")
	if out := do(t, "machine", "kill", id); out != "Sent SIGKILL to "+id+"\n" {
		t.Errorf("machine kill: %q", out)
	}
	do(t, "machine", "kill", "-s", "SIGHUP", id, "--json")
	if diff := cmp.Diff([]string{id + " SIGKILL", id + " SIGHUP"}, w.signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
	if r := sixpnRun(t, "machine", "kill", "-s", "SIGNOTHING", id); r.code != exitFailed || !strings.Contains(r.err, "SIGNOTHING") {
		t.Errorf("unknown signal: %+v", r)
	}
}

func TestMachineUpdate(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "-e", "A=1", "-e", "B=2", "-m", "role=db", "-p", "80:8080", "--restart", "always", "--", "run", "old")
	first := w.store.Snapshot().Machines[id]
	if out := do(t, "machine", "update", id, "-e", "B=3", "--unset-env", "A", "-m", "zone=x", "--unset-metadata", "role", "-p", "81:9090",
		"--kill-signal", "SIGINT", "--", "run", "new"); out != id+" is updated and started\n" {
		t.Errorf("machine update: %q", out)
	}
	m := w.store.Snapshot().Machines[id]
	want := first.Config
	want.Env, want.Metadata = map[string]string{"B": "3"}, map[string]string{"zone": "x"}
	want.Services[0].InternalPort, want.Services[0].Ports[0].Port = 9090, 81
	want.StopConfig.Signal, want.Init.Exec = "SIGINT", []string{"run", "new"}
	if diff := cmp.Diff(want, m.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if m.InstanceID == first.InstanceID {
		t.Error("it was not restarted")
	}
	if m.Lease.HeldAt(time.Now()) {
		t.Errorf("its lease stays: %+v", m.Lease)
	}
	if out := do(t, "machine", "update", id, "--skip-start", "--machine-config", `{"init":{"exec":["run","third"]}}`); out != id+" is updated and stopped\n" {
		t.Errorf("machine update --skip-start: %q", out)
	}
	m = w.store.Snapshot().Machines[id]
	if diff := cmp.Diff([]string{"run", "third"}, m.Config.Init.Exec); diff != "" || len(m.Config.Env) != 0 {
		t.Errorf("config %+v, expected that of --machine-config alone", m.Config)
	}
	// What is refused leaves no lease behind.
	if r := sixpnRun(t, "machine", "update", id, "--mtu", "1"); r.code != exitFailed || !strings.Contains(r.err, "mtu") {
		t.Errorf("update to what is wrong: %+v", r)
	}
	if m := w.store.Snapshot().Machines[id]; m.Lease.HeldAt(time.Now()) {
		t.Errorf("the lease of an update that was refused stays: %+v", m.Lease)
	}
}

// An update is done when the checks of the Machine pass.
func TestMachineUpdateWaitsForChecks(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "--", "run")
	r := sixpnRun(t, "machine", "update", id, "--check", "tcp:80", "-w", "1s")
	if r.code != exitFailed || !strings.Contains(r.err, "its checks do not pass") {
		t.Errorf("update with a check that does not pass: %+v", r)
	}
	do(t, "machine", "update", id, "--check", "tcp:80", "--skip-health-checks")
	done := make(chan result, 1)
	go func() { done <- sixpnRun(t, "machine", "update", id, "-e", "A=1") }()
	w.eventually("it is updated", func(s *state.Snapshot) bool {
		return s.Machines[id].Config.Env["A"] == "1" && s.Machines[id].State == state.Started
	})
	w.setChecks(id, state.CheckStatus{Name: "tcp-80", Service: -1, Status: state.CheckPassing})
	if r := <-done; r.code != exitDone {
		t.Errorf("update with a check that passes: %+v", r)
	}
}

func (w *world) setChecks(id string, checks ...state.CheckStatus) {
	w.t.Helper()
	_, _, err := w.store.UpdateMachine(w.t.Context(), id, func(m *state.Machine) error {
		m.Checks = checks
		return nil
	})
	must(w.t, err)
}

func TestMachineStatusOfChecks(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "-p", "80:8080", "--check", "alive=http:8080/healthz", "--", "run")
	w.setChecks(id, state.CheckStatus{Name: "alive", Service: -1, Status: state.CheckCritical, Output: "500\nsorry", UpdatedAt: time.Now()})
	_, _, err := w.store.UpdateMachine(t.Context(), id, func(m *state.Machine) error {
		m.Relayed = []uint16{8080}
		return nil
	})
	must(t, err)
	out := do(t, "machine", "status", "-d", id)
	for _, want := range []string{"alive critical just now 500\n", "Relayed: 8080 (IPv4 only: the client's address is lost", "created launch user", `"path": "/healthz"`} {
		if !strings.Contains(strings.Join(columns(out), "\n")+"\n", want) {
			t.Errorf("machine status %q, expected %q", out, want)
		}
	}
	if rows := columns(do(t, "machine", "list")); !strings.Contains(rows[1], "started 1 total, 1 critical") {
		t.Errorf("machine list: %q", rows)
	}
}

func TestMachineLeases(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "--", "run")
	if rows := columns(do(t, "machine", "leases", "view", id)); rows[1] != id+" none" {
		t.Errorf("machine leases view: %q", rows)
	}
	_, _, err := w.store.AcquireLease(t.Context(), id, state.LeaseRequest{TTL: time.Minute, Owner: "deploy", Description: "rolling"})
	must(t, err)
	if rows := columns(do(t, "machine", "leases", "view", id)); !strings.Contains(rows[1], "deploy in") || !strings.HasSuffix(rows[1], "rolling") {
		t.Errorf("machine leases view: %q", rows)
	}
	for _, args := range []string{"stop", "start", "restart", "suspend", "cordon", "uncordon", "destroy --force", "update -e A=1", "kill"} {
		r := sixpnRun(t, append([]string{"machine"}, strings.Fields(args+" "+id)...)...)
		if r.code != exitFailed || !strings.Contains(r.err, "is leased") || !strings.Contains(r.err, "sixpn machine leases") {
			t.Errorf("%s of what is leased: %+v", args, r)
		}
	}
	if out := do(t, "machine", "leases", "clear", id); out != "Cleared the lease of "+id+"\n" {
		t.Errorf("machine leases clear: %q", out)
	}
	if out := do(t, "machine", "leases", "clear", id); out != id+" has no lease\n" {
		t.Errorf("machine leases clear of none: %q", out)
	}
	do(t, "machine", "stop", id)
}

func TestMachineAttach(t *testing.T) {
	w := newWorldWithApps(t)
	m := asJSON[api.Machine](t, "machine", "attach", "-a", "web", "--device", "tap0", "--mac", "02:00:00:00:00:01", "-p", "80:8080", "-n", "vm")
	if m.State != "started" || m.Config.Attach == nil || m.Config.Attach.Device != "tap0" || len(m.Config.Services) != 1 {
		t.Errorf("machine attach: %+v", m)
	}
	if out := do(t, "machine", "status", m.ID); !strings.Contains(out, "device tap0, MAC address 02:00:00:00:00:01") {
		t.Errorf("machine status: %q", out)
	}
	for _, args := range [][]string{{"--netns", "/run/netns/x"}, {"--pid", fmt.Sprint(os.Getpid())}} {
		do(t, append([]string{"machine", "attach", "-a", "web"}, args...)...)
	}
	process := runs(t, "--", "run")
	if r := sixpnRun(t, "machine", "detach", m.ID, process); r.code != exitFailed || !strings.Contains(r.err, "sixpn machine destroy "+process) {
		t.Errorf("detach of a command: %+v", r)
	}
	if w.stateOf(m.ID) != state.Started {
		t.Errorf("a detach that was refused left %s %s", m.ID, w.stateOf(m.ID))
	}
	if out := do(t, "machine", "detach", m.ID); out != m.ID+" is destroyed\n" {
		t.Errorf("machine detach: %q", out)
	}
}

func TestMachineConfigFlag(t *testing.T) {
	newWorldWithApps(t)
	file := filepath.Join(t.TempDir(), "machine.json")
	must(t, os.WriteFile(file, []byte(`{"init":{"exec":["run","file"]},"env":{"A":"1"},"restart":{"policy":"always"}}`), 0o600))
	for _, row := range []struct {
		stdin  string
		source string
		args   []string
		want   api.MachineConfig
	}{
		{"", file, []string{"-e", "B=2"}, api.MachineConfig{
			Init: api.Init{Exec: []string{"run", "file"}}, Env: api.StringMap{"A": "1", "B": "2"}, Restart: api.Restart{Policy: "always"}}},
		{"", `{"env":{"A":"1"}}`, []string{"-e", "A=2", "--", "run"}, api.MachineConfig{
			Init: api.Init{Exec: []string{"run"}}, Env: api.StringMap{"A": "2"}}},
		{`{"init":{"exec":["run"]}}`, "-", []string{"--skip-dns-registration", "--dns-nameserver", "fdaa::3", "--dns-search", "internal"}, api.MachineConfig{
			Init: api.Init{Exec: []string{"run"}},
			DNS:  api.DNSConfig{SkipRegistration: true, Nameservers: []string{"fdaa::3"}, Searches: []string{"internal"}}}},
		{"", `{}`, []string{"--kill-signal", "SIGINT", "--kill-timeout", "7", "--", "run"}, api.MachineConfig{
			Init: api.Init{Exec: []string{"run"}}, StopConfig: api.StopConfig{Signal: "SIGINT", Timeout: api.DurationValue(7 * time.Second)}}},
	} {
		r := sixpnIn(t, row.stdin, append([]string{"--json", "machine", "run", "-a", "web", "-d", "--machine-config", row.source}, row.args...)...)
		if r.code != exitDone {
			t.Errorf("--machine-config %s %q: %+v", row.source, row.args, r)
			continue
		}
		m := unmarshal[api.Machine](t, r.out)
		if diff := cmp.Diff(row.want, m.Config); diff != "" {
			t.Errorf("--machine-config %s %q: config (-want +got):\n%s", row.source, row.args, diff)
		}
	}
	for source, row := range map[string]struct {
		code    int
		message string
	}{
		`{"innit":{}}`:              {exitUsage, `unknown field "innit"`},
		`{} {}`:                     {exitUsage, "expected one JSON object"},
		`{"mtu":"large"}`:           {exitUsage, "not a Machine's configuration"},
		filepath.Join(file, "none"): {exitFailed, "not a directory"},
		`{"env":{"A":"1"}}`:         {exitFailed, "config.init"},
	} {
		if r := sixpnRun(t, "machine", "run", "-a", "web", "-d", "--machine-config", source); r.code != row.code || !strings.Contains(r.err, row.message) {
			t.Errorf("--machine-config %s: %+v, expected %d and %q", source, r, row.code, row.message)
		}
	}
}

// With --rm a Machine is gone when the command line returns.
func TestMachineRunRemoves(t *testing.T) {
	w := newWorldWithApps(t)
	for _, command := range []string{"exit 5", "fail no such file"} {
		r := sixpnRun(t, append([]string{"machine", "run", "-a", "web", "--rm", "--"}, strings.Fields(command)...)...)
		if r.code == exitDone || len(w.store.Snapshot().Machines) != 0 {
			t.Errorf("run --rm %s: %+v, and %d Machines are left", command, r, len(w.store.Snapshot().Machines))
		}
	}
}

// Who interrupts a command line is told nothing: they know.
func TestInterruptIsSilent(t *testing.T) {
	w := newWorldWithApps(t)
	id := runs(t, "--", "run", "hello")
	for _, args := range []string{"machine logs -f " + id, "logs -a web", "machine exec " + id + " forever"} {
		ctx, interrupt := context.WithCancel(t.Context())
		out := &notified{wrote: make(chan struct{}, 100)}
		var errs strings.Builder
		ended := make(chan int, 1)
		go func() { ended <- run(ctx, strings.Fields(args), nil, out, &errs) }()
		if strings.Contains(args, "exec") {
			<-w.executing
		} else {
			<-out.wrote
		}
		interrupt()
		if code := <-ended; code != exitInterrupted || errs.String() != "" {
			t.Errorf("sixpn %s: exit code %d, stderr %q, expected 130 and nothing", args, code, errs.String())
		}
	}
}

// notified tells when it is written to.
type notified struct {
	strings.Builder
	wrote chan struct{}
}

func (n *notified) Write(b []byte) (int, error) {
	defer func() { n.wrote <- struct{}{} }()
	return n.Builder.Write(b)
}
