package agent_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
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

// TestNeighbours: agents of different names share a host and a run directory, and
// know nothing of each other; the end of one leaves the other alone.
func TestNeighbours(t *testing.T) {
	ctx := nettest.Context(t)
	first := newPair(ctx, t, nettest.Config{})
	second := newPairOn(ctx, t, nettest.StartNeighbour(ctx, t, first.Host))
	// Both have the same addresses: what one sends never comes to the other.
	if first.client.Addr != second.client.Addr {
		t.Fatalf("clients are %s and %s, expected the same: each has a store of its own", first.client.Addr, second.client.Addr)
	}
	for _, p := range []*pair{first, second} {
		if by := connects(ctx, t, p.client, at(p.vip, vipPort)); by[p.server.ID] != 10 {
			t.Errorf("%v answered, expected %s", by, p.server.ID)
		}
	}
	nettest.Must(t, second.KillAgent())
	nettest.Get[string](t)(second.Reset(ctx, "--state"))
	first.works(ctx, t)
	first.converged(ctx, t, 2)
	nettest.Must(t, first.KillAgent())
	nettest.Get[string](t)(first.Reset(ctx))
	if left := nettest.Get[[]string](t)(first.Traces()); len(left) > 0 {
		t.Errorf("after both were reset there is still %q", left)
	}
}

// TestRefusedConfig: what cannot work is refused before anything is made.
func TestRefusedConfig(t *testing.T) {
	ctx := nettest.Context(t)
	for _, row := range []struct{ name, flag, value, says string }{
		{"region", "--region", "nowhere", "region"},
		{"MTU", "--mtu", "100", "from 1280 to 9000"},
		{"name", "--name", "Not A Name", "lower-case letters"},
		{"host name", "--host-name", "-x-", "--host-name"},
		{"run directory", "--run-dir", "/var/lib/" + strings.Repeat("x", 100), "too long"},
		{"file", "--config", "/nowhere/agent.yaml", "/nowhere/agent.yaml"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, err := nettest.NewHost(nettest.Config{})
			nettest.Must(t, err)
			t.Cleanup(func() { nettest.Must(t, h.Close()) })
			err = h.TryAgent(ctx, row.flag, row.value)
			if ended := (*exec.ExitError)(nil); !errors.As(err, &ended) || ended.ExitCode() != 2 {
				t.Errorf("an agent with %s %q ended with %v, expected exit status 2", row.flag, row.value, err)
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

// TestResetOfNothing: a name that nobody had leaves no directory behind.
func TestResetOfNothing(t *testing.T) {
	ctx := nettest.Context(t)
	for _, flags := range [][]string{nil, {"--state"}} {
		h, err := nettest.NewHost(nettest.Config{})
		nettest.Must(t, err)
		t.Cleanup(func() { nettest.Must(t, h.Close()) })
		if output := nettest.Get[string](t)(h.Reset(ctx, flags...)); output != "" {
			t.Errorf("reset %q of nothing says %q", flags, output)
		}
		for _, path := range []string{filepath.Dir(h.StateDir()), h.RunDir(), h.PinDir()} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("reset %q of nothing left %s (%v)", flags, path, err)
			}
		}
	}
}
