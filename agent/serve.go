package agent

import (
	"context"
	"fmt"

	"github.com/sixpn/sixpn/api"
)

// openAPI makes what answers, on the socket and to other hosts.
func (a *agent) openAPI(context.Context) error {
	a.api = api.NewServer(api.Config{
		Store:     fleetStore{a.store, a.whole, a.unseat, a.unseatLater},
		Machines:  insides{a.driver, a.manager},
		DataPlane: dataPlane{a},
		Resolver:  tenant{a},
		Pinger:    tenant{a},
		Inviter:   a.inviter(),
		Keys:      a.keys(),
		Keeper:    keeper{a},
		Carrier:   a.carrier(),
		Host:      a.host.ID,
		Region:    a.host.Region,
		Distances: a.trips.Distances,
		Hosts:     hosts{a},
		Log:       a.log,
	})
	return nil
}

// serveAPI answers on the unix socket as soon as the agent knows what runs on this
// host: the socket is the sign that the agent is ready.
func (a *agent) serveAPI(ctx context.Context) error {
	if err := a.settle(ctx); err != nil {
		return err
	}
	close(a.settled)
	listener, err := api.Listen(a.config.socket())
	if err != nil {
		return err
	}
	defer listener.Close()
	a.log.Info("ready", "name", a.config.Name, "socket", a.config.socket())
	if a.config.Ready != nil {
		a.config.Ready(a.config.socket())
	}
	if err := a.api.Serve(ctx, listener); err != nil {
		return fmt.Errorf("serve %s: %w", a.config.socket(), err)
	}
	return nil
}
