package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

// outage is how long most of the store is away.
const outage = time.Minute

// TestFleetOutages: three hosts have the store. Each agent in turn is killed, and the
// member of the store in it; each host in turn is cut off; then two are away at once. No
// write that was acknowledged is lost, what stays on one host loses no packet, no name
// fails, and whatever is stopped leaves the names of all hosts that have the store.
func TestFleetOutages(t *testing.T) {
	t.Parallel() // most of it is waiting
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "fra", "ams"},
		Host:    nettest.Config{AgentFlags: []string{"--members-interval", "300ms"}},
	})
	awaitVoters(ctx, t, f)
	b := begin(ctx, t, f.Hosts)
	for i, h := range f.Hosts {
		nettest.Must(t, h.KillAgent())
		pass(ctx, 500*time.Millisecond)
		started := make(chan error, 1)
		go func() { started <- h.StartAgent(ctx) }() // at once: its resolver answers by it
		again := withdraw(ctx, t, others(b.each, i)...)
		nettest.Must(t, <-started)
		again()
	}
	for i, h := range f.Hosts {
		nettest.Must(t, h.Uplink.Cut())
		pass(ctx, 4*time.Second)
		withdraw(ctx, t, others(b.each, i)...)()
		nettest.Must(t, h.Uplink.Heal())
	}
	for _, h := range f.Hosts[:2] {
		nettest.Must(t, h.Uplink.Cut())
	}
	pass(ctx, outage)
	for _, h := range f.Hosts[:2] {
		nettest.Must(t, h.Uplink.Heal())
	}
	b.end(ctx, t)
}
