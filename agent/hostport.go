package agent

import (
	"context"
	"fmt"

	"github.com/sixpn/sixpn/reconcile"
)

// hostPort is the device into the private namespace, as the tables want it.
func (a *agent) hostPort() reconcile.HostPort {
	outside, inside := a.private.HostSide(), a.private.InsideSide()
	return reconcile.HostPort{Ifindex: outside.Ifindex, MTU: a.private.MTU(), InsideMAC: inside.MAC, RouterMAC: outside.MAC}
}

// raiseHostPort makes the device into the private namespace a port, in the order
// of every port. One that carries our link already is left as it is by Prepare.
func (a *agent) raiseHostPort(ctx context.Context) error {
	port := a.hostPort()
	for _, step := range []func() error{
		func() error { return a.loader.Prepare(port.Ifindex) },
		func() error { return a.loop.SetHostPort(ctx, port) },
		func() error { return a.loader.Attach(port.Ifindex) },
		func() error { return a.loader.Raise(port.Ifindex) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("host port %s: %w", a.private.HostSide().Name, err)
		}
	}
	return nil
}
