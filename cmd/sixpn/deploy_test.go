package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/cmd/sixpn/internal/rollout"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/state"
)

// newShop is a world with an app to deploy to.
func newShop(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	do(t, "orgs", "create", "acme")
	do(t, "apps", "create", "web", "--org", "acme")
	return w
}

// flyToml writes a file and returns its path.
func flyToml(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fly.toml")
	must(t, os.WriteFile(path, []byte("app = \"web\"\n"+text), 0o600))
	return path
}

const (
	serves = "[processes]\napp = \"run hello\"\n[http_service]\ninternal_port = 8080\n"
	breaks = "[processes]\napp = \"fail for good\"\n[http_service]\ninternal_port = 8080\n"
	checks = "[[http_service.checks]]\npath = \"/\"\n"
)

// quickly deploys without the waits that are for people's programs.
func quickly(args ...string) []string {
	return append([]string{"deploy", "--settle-time", "50ms", "--poll-interval", "5ms", "--wait-timeout", "20s"}, args...)
}

// shopMachines is what there is, by name, as "name command release state".
func shopMachines(t *testing.T) (rows []string) {
	t.Helper()
	for _, m := range asJSON[[]api.Machine](t, "machine", "list", "-a", "web") {
		if m.State == "destroying" {
			continue
		}
		rows = append(rows, strings.Join([]string{
			m.Name, strings.Join(m.Config.Init.Exec, " "), "release", m.Config.Metadata["fly_release_version"], m.State,
		}, " "))
		if m.Cordoned {
			t.Errorf("Machine %s is left cordoned", m.Name)
		}
		if lease := sixpnRun(t, "machine", "leases", "view", m.ID, "-a", "web"); !strings.Contains(lease.out, "none") {
			t.Errorf("the lease of Machine %s is left behind: %s", m.Name, lease.out)
		}
	}
	slices.Sort(rows)
	return rows
}

func demandMachines(t *testing.T, want ...string) {
	t.Helper()
	if got := shopMachines(t); !slices.Equal(got, want) {
		t.Errorf("the Machines are %q, expected %q", got, want)
	}
}

func TestDeploy(t *testing.T) {
	newShop(t)
	foreign := strings.TrimSpace(do(t, "machine", "run", "-a", "web", "-n", "own", "--detach", "--json", "--", "run", "own"))
	if foreign == "" {
		t.Fatal("there is no Machine")
	}
	first := asJSON[rolled](t, quickly("-c", flyToml(t, serves+"[build]\n"), "--count", "2")...)
	if !first.OK || first.Release != 1 || len(first.Steps) != 2 || len(first.Warnings) != 1 {
		t.Errorf("the first deploy answers %+v", first)
	}
	demandMachines(t, "app-1 run hello release 1 started", "app-2 run hello release 1 started", "own run own release  started")

	second := do(t, quickly("-c", flyToml(t, strings.Replace(serves, "hello", "again", 1)))...)
	demandMachines(t, "app-1 run again release 2 started", "app-2 run again release 2 started", "own run own release  started")
	for _, want := range []string{"[1/2] update app-", "): done", "release 2: 2 updated"} {
		if !strings.Contains(second, want) {
			t.Errorf("the second deploy says %q, expected %q", second, want)
		}
	}

	do(t, "scale", "count", "3", "-a", "web", "--settle-time", "50ms")
	do(t, "scale", "count", "1", "-a", "web", "--settle-time", "50ms")
	demandMachines(t, "app-1 run again release 2 started", "own run own release  started")

	groups := "[processes]\nfront = \"run front\"\nback = \"run back\"\n"
	do(t, quickly("-c", flyToml(t, groups))...)
	demandMachines(t, "back-1 run back release 3 started", "front-1 run front release 3 started", "own run own release  started")
}

// A file without commands takes the one after --, and its environment from flags.
func TestDeployCommandAfterDash(t *testing.T) {
	newShop(t)
	do(t, quickly("-c", flyToml(t, "[env]\nA = \"file\"\nB = \"file\"\n"), "-e", "A=flag", "--strategy", "immediate", "--", "run", "it")...)
	m := asJSON[[]api.Machine](t, "machine", "list", "-a", "web")[0]
	if strings.Join(m.Config.Init.Exec, " ") != "run it" || m.Config.Env["A"] != "flag" || m.Config.Env["B"] != "file" {
		t.Errorf("the Machine got %v with %v", m.Config.Init.Exec, m.Config.Env)
	}
}

// A release that does not start leaves everything as it was.
func TestDeployRollsBack(t *testing.T) {
	newShop(t)
	do(t, quickly("-c", flyToml(t, serves), "--count", "2")...)
	for _, row := range []struct {
		name string
		args []string
	}{
		{"an update", nil},
		{"a creation", []string{"--count", "3"}},
		{"all at once", []string{"--strategy", "immediate"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := sixpnRun(t, quickly(append([]string{"-c", flyToml(t, breaks)}, row.args...)...)...)
			if r.code != exitFailed || !strings.Contains(r.err, "for good") || !strings.Contains(r.err, "rolled back") {
				t.Errorf("exit code %d, stderr %s", r.code, r.err)
			}
			demandMachines(t, "app-1 run hello release 1 started", "app-2 run hello release 1 started")
		})
	}
}

// A Machine that somebody else holds stops a deploy before it has begun.
func TestDeployRespectsLeases(t *testing.T) {
	w := newShop(t)
	do(t, quickly("-c", flyToml(t, serves), "--count", "2")...)
	machines := w.store.Snapshot().AppMachines("web")
	held := machines[1].ID
	lease, _, err := w.store.AcquireLease(t.Context(), held, state.LeaseRequest{TTL: 60e9, Owner: "an operator"})
	must(t, err)
	r := sixpnRun(t, quickly("-c", flyToml(t, strings.Replace(serves, "hello", "again", 1)))...)
	if r.code != exitFailed || !strings.Contains(r.err, held) || !strings.Contains(r.err, "somebody else") {
		t.Errorf("exit code %d, stderr %s", r.code, r.err)
	}
	_, err = w.store.ReleaseLease(t.Context(), held, lease.Nonce)
	must(t, err)
	demandMachines(t, "app-1 run hello release 1 started", "app-2 run hello release 1 started")
}

// Interrupted, a deploy says what is where, and holds and cordons nothing.
func TestDeployInterrupted(t *testing.T) {
	w := newShop(t)
	do(t, quickly("-c", flyToml(t, serves), "--count", "2")...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := flyToml(t, strings.Replace(serves, "hello", "again", 1)+checks) // which nobody answers here
	ended := make(chan result, 1)
	go func() {
		var out, errs bytes.Buffer
		code := run(ctx, quickly("-c", path, "--lease-ttl", "1s"), strings.NewReader(""), &out, &errs)
		ended <- result{code, out.String(), errs.String()}
	}()
	must(t, nettest.Eventually(t.Context(), "a Machine is at release 2", func(context.Context) error {
		for _, m := range w.store.Snapshot().AppMachines("web") {
			if m.Config.Metadata["fly_release_version"] == "2" && m.State == state.Started && m.Pending == "" {
				return nil
			}
		}
		return fmt.Errorf("none is")
	}))
	// However long it takes, nobody else gets at its Machines.
	id := w.store.Snapshot().AppMachines("web")[0].ID
	first := w.store.Snapshot().Machines[id].Lease
	if first == nil {
		t.Fatal("there is no lease while it deploys")
	}
	must(t, nettest.Eventually(t.Context(), "the lease is renewed", func(context.Context) error {
		if now := w.store.Snapshot().Machines[id].Lease; now == nil || !now.ExpiresAt.After(first.ExpiresAt.Add(time.Second)) {
			return fmt.Errorf("it is %+v", now)
		}
		return nil
	}))
	cancel()
	r := <-ended
	if r.code != exitInterrupted || !strings.Contains(r.err, string(rollout.Interrupted)) || !strings.Contains(r.err, string(rollout.Pending)) {
		t.Errorf("exit code %d, stderr %s", r.code, r.err)
	}
	demandMachines(t, "app-1 run again release 2 started", "app-2 run hello release 1 started")
}

func TestDeployRefuses(t *testing.T) {
	newShop(t)
	for _, row := range []struct {
		name, want string
		code       int
		args       []string
	}{
		{"no file", "there is no ", exitFailed, []string{"-c", "/none/fly.toml"}},
		{"a mistyped table", "process is unknown and not used, did you mean processes?", exitFailed, []string{"-c", flyToml(t, "[process]\napp = \"run\"\n")}},
		{"an unknown strategy", "expected rolling or immediate", exitUsage, []string{"--strategy", "canary"}},
		{"an unknown group", `no process group "web"`, exitUsage, []string{"--count", "web=1"}},
		{"a malformed count", "is malformed", exitUsage, []string{"--count", "many"}},
		{"a command beside [processes]", "expected one of the two", exitFailed, []string{"--", "run"}},
		{"two counts of a group", "two counts", exitUsage, []string{"--count", "1,app=2"}},
		{"a count beyond all hosts", "expected at most 10000", exitUsage, []string{"--count", "100000"}},
		{"an unknown app", "none", exitFailed, []string{"-a", "none"}},
		{"a word too many", "unexpected argument", exitUsage, []string{"web"}},
		{"a malformed variable", "expected KEY=VALUE", exitUsage, []string{"-e", "A"}},
		{"no time", "--wait-timeout is 0s", exitUsage, []string{"--wait-timeout", "0s"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := sixpnRun(t, append([]string{"deploy", "-c", flyToml(t, serves)}, row.args...)...)
			if r.code != row.code || !strings.Contains(r.err, row.want) {
				t.Errorf("exit code %d, stderr %s; expected %d and %q", r.code, r.err, row.code, row.want)
			}
		})
	}
	demandMachines(t)
}
