package agent

import (
	"context"

	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

// openChecks makes what runs the health checks of this host's Machines, out of the
// private namespace: a Machine sees the agent's address in its own network.
func (a *agent) openChecks(context.Context) (err error) {
	a.prober, err = flycast.NewProber(flycast.ProberConfig{
		Host: a.host.ID, Store: state.HostStore{Store: a.store, Host: a.host.ID}, Connect: a.private.Connect, Log: a.log,
	})
	return err
}

// checkHealth runs the health checks until ctx ends.
func (a *agent) checkHealth(ctx context.Context) error {
	// Before the ports are in the tables every check would fail.
	for _, done := range []<-chan struct{}{a.hostUp, a.manager.Adopted()} {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return a.prober.Run(ctx)
}
