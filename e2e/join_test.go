package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

// TestJoin: what lets a host in, and what does not.
func TestJoin(t *testing.T) {
	ctx := nettest.Context(t)
	f := nettest.Get[*nettest.Fleet](t)(nettest.NewFleet(nettest.FleetConfig{}))
	t.Cleanup(func() { nettest.Must(t, f.Close()) })
	first := nettest.Get[*nettest.Host](t)(f.NewHost("iad"))
	nettest.Must(t, first.StartAgent(ctx))
	token := nettest.Get[string](t)(first.Invite(ctx))
	second := nettest.Get[*nettest.Host](t)(f.NewHost("fra"))
	turnedAway(ctx, t, second, "a forged secret", nettest.Get[string](t)(nettest.ForgeToken(token)))
	turnedAway(ctx, t, second, "half a token", token[:len(token)/2])
	nettest.Must(t, second.StartAgent(ctx, "--join", token))

	// The token is not needed again, nor looked at.
	nettest.Must(t, second.KillAgent())
	nettest.Must(t, second.StartAgent(ctx, "--join", token))
	nettest.Must(t, second.KillAgent())
	nettest.Must(t, second.StartAgent(ctx))

	third := nettest.Get[*nettest.Host](t)(f.NewHost("fra"))
	turnedAway(ctx, t, third, "a used token", token)

	// A copy of a host's state is not another host.
	if output, err := exec.Command("cp", "-a", second.StateDir()+"/.", third.StateDir()+"/").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	turnedAway(ctx, t, third, "a copy of another host's state", "")
	for _, h := range []*nettest.Host{first, second} {
		if _, err := h.Status(ctx); err != nil {
			t.Errorf("after the copy was turned away: %v", err)
		}
	}

	// A host that lost its disk is a new one.
	id := func() string { return nettest.Get[string](t)(hostID(ctx, second)) }
	before := id()
	nettest.Must(t, second.KillAgent())
	_, err := second.Reset(ctx)
	nettest.Must(t, err)
	nettest.Must(t, os.RemoveAll(second.StateDir()))
	nettest.Must(t, second.StartAgent(ctx, "--host-name", second.Name+"-anew", "--join", nettest.Get[string](t)(first.Invite(ctx))))
	if after := id(); after == before {
		t.Errorf("a host that lost its disk has id %s again", after)
	}
}

func hostID(ctx context.Context, h *nettest.Host) (string, error) {
	status, err := h.Status(ctx)
	return status.Agent.Host, err
}

// turnedAway demands that an agent ends because of how it tries to get in.
func turnedAway(ctx context.Context, t *testing.T, h *nettest.Host, what, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // a copy waits for the original's end
	defer cancel()
	var flags []string
	if token != "" {
		flags = []string{"--join", token}
	}
	if err := h.TryAgent(ctx, flags...); err == nil || ctx.Err() != nil {
		t.Errorf("%s was not refused: %v", what, err)
	}
}
