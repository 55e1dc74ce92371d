package agent_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

// newMetricsHost is a host whose agent serves metrics.
func newMetricsHost(ctx context.Context, t *testing.T) *nettest.Host {
	t.Helper()
	h, err := nettest.NewHost(nettest.Config{AgentFlags: []string{"--metrics-listen", nettest.MetricsAddress}})
	nettest.Must(t, err)
	t.Cleanup(func() { nettest.Must(t, h.Close()) })
	nettest.Must(t, h.StartAgent(ctx))
	return h
}

const (
	packetsIn = `sixpn_port_packets_total{direction="in",kind="machine",network="default",org="acme"}`
	droppedIn = `sixpn_port_dropped_packets_total{kind="machine",network="default",org="acme"}`
	noMachine = `sixpn_dropped_packets_total{reason="no_machine"}`
	ended     = `sixpn_machines{app="web",org="acme",state="stopped"}`
)

// What happens in the kernel is in the metrics, and a restart of the agent begins sums
// over ports anew, at zero, while drops go on.
func TestMetrics(t *testing.T) {
	t.Parallel()
	ctx := nettest.Context(t)
	h := newMetricsHost(ctx, t)
	p := newPairOn(ctx, t, h)
	p.works(ctx, t)
	nobody := p.server.Addr.As16()
	nobody[10] = 0x7f // the machine field: there is no such Machine
	scrape := func() map[string]float64 {
		t.Helper()
		return nettest.Get[map[string]float64](t)(h.Scrape(ctx, nettest.MetricsAddress))
	}
	before := scrape()
	if _, err := p.client.Exec(ctx, p.Payload("connect", "-count", "3", "-timeout", "100ms", netip.AddrPortFrom(netip.AddrFrom16(nobody), 1).String())...); err != nil {
		t.Fatal(err)
	}
	after := scrape()
	drops := nettest.Get[uint64](t)(h.Drops(ctx, "no_machine"))
	if after[noMachine]-before[noMachine] < 3 || after[noMachine] != float64(drops) {
		t.Errorf("three connections to nobody are %v drops, then %v; status says %d", before[noMachine], after[noMachine], drops)
	}
	if before[packetsIn] == 0 || after[droppedIn]-before[droppedIn] < 3 {
		t.Errorf("%v packets were forwarded, and %v of the network were dropped, then %v", before[packetsIn], before[droppedIn], after[droppedIn])
	}
	choices := 0.0
	for name, value := range after {
		if strings.HasPrefix(name, "sixpn_backend_choices_total{") && strings.Contains(name, p.server.ID) && strings.Contains(name, `port="80"`) {
			choices += value
		}
	}
	if choices < 10 {
		t.Errorf("ten connections to the VIP are %v choices of its backend", choices)
	}
	if after["sixpn_propagation_seconds_count"] == 0 || after["sixpn_applied_revision"] == 0 {
		t.Errorf("%v changes were applied, up to revision %v", after["sixpn_propagation_seconds_count"], after["sixpn_applied_revision"])
	}

	// A Machine that goes takes nothing from the sums.
	nettest.Must(t, p.client.Destroy(ctx))
	if gone := scrape(); gone[packetsIn] < after[packetsIn] {
		t.Errorf("packets fell from %v to %v with the Machine", after[packetsIn], gone[packetsIn])
	}
	nettest.Must(t, p.server.Stop(ctx))
	nettest.Must(t, p.server.Wait(ctx, "stopped"))
	if stopped := scrape()[ended]; stopped != 1 {
		t.Errorf("%v Machines are stopped, want 1", stopped)
	}

	nettest.Must(t, h.KillAgent())
	nettest.Must(t, h.StartAgent(ctx))
	restarted := scrape()
	if restarted[packetsIn] != 0 || restarted[noMachine] < after[noMachine] {
		t.Errorf("after a restart packets begin at %v, drops go on at %v of %v", restarted[packetsIn], restarted[noMachine], after[noMachine])
	}
}

// An address that is taken ends the agent before it has done anything.
func TestMetricsAddressTaken(t *testing.T) {
	t.Parallel()
	ctx := nettest.Context(t)
	h := nettest.Get[*nettest.Host](t)(nettest.NewHost(nettest.Config{}))
	t.Cleanup(func() { nettest.Must(t, h.Close()) })
	var taken net.Listener
	nettest.Must(t, h.Do(func() (err error) {
		taken, err = net.Listen("tcp", nettest.MetricsAddress)
		return err
	}))
	defer taken.Close()
	if err := h.TryAgent(ctx, "--metrics-listen", nettest.MetricsAddress); err == nil {
		t.Fatal("the agent ended without an error")
	}
	log := string(nettest.Get[[]byte](t)(os.ReadFile(h.LogPath())))
	for _, what := range []string{"address already in use", "--metrics-listen"} {
		if !strings.Contains(log, what) {
			t.Errorf("the log says nothing of %q: %s", what, log)
		}
	}
	for _, path := range []string{h.PinDir(), filepath.Join(h.StateDir(), "store")} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there (%v), though the agent could not start", path, err)
		}
	}
}
