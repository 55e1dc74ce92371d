package agent_test

import (
	"os"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

// TestResetLeavesNothing compares what is on the host before an agent and after a
// reset: devices, pins, mounts, cgroups, run files, processes.
func TestResetLeavesNothing(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	p.works(ctx, t)
	traces := nettest.Get[[]string](t)(p.Traces())
	if len(traces) == 0 {
		t.Fatal("a running agent leaves no trace that this test can see")
	}
	nettest.Must(t, p.KillAgent())
	output := nettest.Get[string](t)(p.Reset(ctx))
	for _, what := range []string{"machine " + p.server.ID, "machine " + p.client.ID, "pins below", "namespace "} {
		if !strings.Contains(output, "removed "+what) {
			t.Errorf("reset does not say that it removed %q: %s", what, output)
		}
	}
	if left := nettest.Get[[]string](t)(p.Traces()); len(left) > 0 {
		t.Errorf("after reset there is still %q", left)
	}
	if _, err := os.Stat(p.StateDir()); err != nil {
		t.Errorf("the state directory is gone too: %v", err)
	}
	// Once more finds nothing, and an agent finds all that was ordered.
	if output := nettest.Get[string](t)(p.Reset(ctx)); strings.Contains(output, "removed") {
		t.Errorf("a second reset still removed something: %s", output)
	}
	nettest.Must(t, p.StartAgent(ctx))
	nettest.Must(t, p.server.Start(ctx))
	nettest.Must(t, p.client.Start(ctx))
	p.works(ctx, t)
	nettest.Must(t, p.StopAgent(ctx))
	nettest.Get[string](t)(p.Reset(ctx, "--state"))
	if _, err := os.Stat(p.StateDir()); !os.IsNotExist(err) {
		t.Errorf("with --state the state directory is still there: %v", err)
	}
}

// TestDetachOnExit: the same, by the agent itself.
func TestDetachOnExit(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{AgentFlags: []string{"--detach-on-exit"}})
	nettest.Must(t, p.StopAgent(ctx))
	if left := nettest.Get[[]string](t)(p.Traces()); len(left) > 0 {
		t.Errorf("after the agent's end there is still %q", left)
	}
}

// TestTwoAgents: the second of one name is refused, and so is a reset under a
// running agent; the first goes on.
func TestTwoAgents(t *testing.T) {
	ctx := nettest.Context(t)
	p := newPair(ctx, t, nettest.Config{})
	if err := p.TryAgent(ctx); err == nil {
		t.Error("a second agent of one name ended without an error")
	}
	if !logged(t, p.Host, "another agent uses this state directory", "--state-dir") {
		t.Error("the second agent did not say why it ends and what to do")
	}
	if output, err := p.Reset(ctx); err == nil {
		t.Errorf("a reset under a running agent did %q", output)
	}
	p.works(ctx, t)
	p.converged(ctx, t, 2)
}

// TestRefusedConfig: what cannot work is refused before anything is made.
func TestRefusedConfig(t *testing.T) {
	ctx := nettest.Context(t)
	for _, row := range []struct{ name, flag, value, says string }{
		{"region", "--region", "nowhere", "region"},
		{"MTU", "--mtu", "100", "MTU 100 is out of range"},
		{"name", "--name", "Not A Name", "malformed"},
		{"host name", "--host-name", "-x-", "host"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, err := nettest.NewHost(nettest.Config{})
			nettest.Must(t, err)
			t.Cleanup(func() { nettest.Must(t, h.Close()) })
			if err := h.TryAgent(ctx, row.flag, row.value); err == nil {
				t.Errorf("an agent with %s %q ended without an error", row.flag, row.value)
			}
			if !logged(t, h, row.says) {
				t.Errorf("the agent did not say %q", row.says)
			}
			if left := nettest.Get[[]string](t)(h.Traces()); len(left) > 0 {
				t.Errorf("it left %q", left)
			}
		})
	}
}
