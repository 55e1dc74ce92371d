package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// What a Machine goes through, by the command line, on a real host.
func TestVerbsOnAHost(t *testing.T) {
	ctx := nettest.Context(t)
	newHost(ctx, t, "web")
	if r := sixpnRun(t, "machine", "run", "-a", "web", "--rm", "--", "sh", "-c", "echo hello; exit 3"); r.code != 3 || r.out != "hello\n" {
		t.Errorf("machine run --rm: %+v", r)
	}
	if out := do(t, "machine", "list", "-q"); out != "" {
		t.Errorf("after run --rm there is %q", out)
	}
	id := runs(t, "--wait", "-e", "A=1", "--", "sleep", "1000")
	binary := "\x00\xff\n"
	if r := sixpnIn(t, binary, "machine", "exec", "-i", id, "--", "cat"); r.code != exitDone || r.out != binary {
		t.Errorf("machine exec: %+v", r)
	}
	for _, step := range []struct{ args, out string }{
		{"machine suspend --wait", id + " is suspended\n"},
		{"machine resume --wait", id + " is started\n"},
		{"machine update -e A=2 --wait", id + " is updated and started\n"},
	} {
		if out := do(t, append(strings.Fields(step.args), id)...); out != step.out {
			t.Errorf("%s: %q, expected %q", step.args, out, step.out)
		}
	}
	if out := do(t, "machine", "exec", id, "--", "sh", "-c", "echo $A"); out != "2\n" {
		t.Errorf("after the update A is %q", out)
	}
	do(t, "orgs", "create", "other")
	do(t, "apps", "move", "web", "--org", "other", "--yes", "--wait")
	m := asJSON[api.Machine](t, "machine", "status", id)
	if m.State != "started" || !strings.HasPrefix(m.PrivateIP, "fdaa:0:2:") {
		t.Errorf("after the move it is %s at %s", m.State, m.PrivateIP)
	}
	if out := do(t, "machine", "exec", id, "--", "cat", "/proc/net/if_inet6"); !strings.Contains(out, "fdaa00000002") {
		t.Errorf("after the move its addresses are %q", out)
	}
	do(t, "machine", "kill", id)
	must(t, nettest.Eventually(ctx, "it is killed", func(context.Context) error {
		if m := asJSON[api.Machine](t, "machine", "status", id); m.State != "stopped" || m.LastExit().ExitCode != 137 {
			return fmt.Errorf("it is %s", m.State)
		}
		return nil
	}))
	do(t, "apps", "destroy", "web", "--yes", "--wait")
	do(t, "orgs", "delete", "other", "--yes")
}

// A namespace that something else made becomes a Machine, and none again.
func TestAttachOnAHost(t *testing.T) {
	ctx := nettest.Context(t)
	newHost(ctx, t, "web")
	other := exec.Command("unshare", "-n", "sleep", "1000")
	must(t, other.Start())
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	peer := runs(t, "--wait", "--", "sleep", "1000")
	pid := fmt.Sprint(other.Process.Pid)
	m := asJSON[api.Machine](t, "machine", "attach", "-a", "web", "--pid", pid, "--wait")
	if m.State != "started" {
		t.Fatalf("machine attach: %+v", m)
	}
	if r := sixpnRun(t, "machine", "exec", peer, "--", "ping", "-c", "1", "-W", "2", m.PrivateIP); r.code != exitDone {
		t.Errorf("ping of what is attached: %+v", r)
	}
	do(t, "machine", "detach", m.ID, "--wait")
	out, err := exec.Command("nsenter", "--net=/proc/"+pid+"/ns/net", "ip", "-o", "link").Output()
	if err != nil || bytes.Contains(out, []byte("eth0")) {
		t.Errorf("after the detach there is %s, %v", out, err)
	}
}

// Logs that are followed end with the agent, but not as if that were all.
func TestLogsWhenTheAgentStops(t *testing.T) {
	ctx := nettest.Context(t)
	h := newHost(ctx, t, "web")
	loud, silent := runs(t, "--", "sh", "-c", "echo hello; sleep 1000"), runs(t, "--", "sleep", "1000")
	ends := map[string]chan int{}
	for _, args := range []string{"machine logs -f " + loud, "machine logs -f " + silent, "logs -a web"} {
		ended := make(chan int, 1)
		ends[args] = ended
		out := &notified{wrote: make(chan struct{}, 100)}
		go func() { ended <- run(t.Context(), strings.Fields(args), nil, out, &bytes.Buffer{}) }()
		if !strings.HasSuffix(args, silent) {
			<-out.wrote
		}
	}
	must(t, h.StopAgent(ctx))
	for args, ended := range ends {
		if code := <-ended; code != exitFailed {
			t.Errorf("sixpn %s: exit code %d when the agent stops, expected 1", args, code)
		}
	}
	must(t, h.StartAgent(ctx))
}
