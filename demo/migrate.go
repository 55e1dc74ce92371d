package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// machineMigrate: a Machine goes to the other host and back, its names with it, and one
// that cannot go stays as it is.
func machineMigrate(ctx context.Context, w *world) (detail string, err error) {
	const app = "roamer"
	_, remove, err := w.app(ctx, app)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	m, err := w.host.Run(ctx, app, nettest.Options{Name: "roamer-1", Services: services}, w.host.Payload(server()...)...)
	if err != nil {
		return "", err
	}
	was := m.Addr
	migrate := func(to string) error {
		answer, err := w.host.Client.MigrateMachineWithResponse(ctx, app, m.ID, &api.MigrateMachineParams{}, api.MigrateRequest{HostName: to})
		return api.Check(answer, err)
	}

	// A host that takes none: nothing changes.
	second := w.second()
	drain, err := w.host.Client.DrainHostWithResponse(ctx, second.Name, &api.DrainHostParams{})
	if err := api.Check(drain, err); err != nil {
		return "", err
	}
	refusal := migrate(second.Name)
	undrain, err := w.host.Client.UndrainHostWithResponse(ctx, second.Name, &api.UndrainHostParams{})
	if err := api.Check(undrain, err); err != nil {
		return "", err
	}
	if refusal == nil {
		return "", fmt.Errorf("a migration to %s, which is drained, was not refused", second.Name)
	}
	if _, err := talks(ctx, w.client, m); err != nil {
		return "", fmt.Errorf("after a migration that was refused: %w", err)
	}

	var there netip.Addr
	for _, to := range []*nettest.Host{second, w.host} {
		before := m.Addr
		if err := migrate(to.Name); err != nil {
			return "", err
		}
		if err := w.arrived(ctx, m, to); err != nil {
			return "", err
		}
		if m.Addr == before {
			return "", fmt.Errorf("on %s the Machine still has the address %s", to.Name, before)
		}
		if to == second {
			there = m.Addr
		}
		for _, from := range []*nettest.Machine{w.client, w.away} {
			if err := nettest.Eventually(ctx, "names follow", func(ctx context.Context) error {
				return errors.Join(
					answers(ctx, from, "AAAA", m.ID+".vm."+app+".internal", m.Addr.String()),
					answers(ctx, from, "AAAA", app+".internal", m.Addr.String()))
			}); err != nil {
				return "", err
			}
			if _, err := talks(ctx, from, m); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("%s of %s: %s → %s on the other host → %s, the same id and names, answered on both hosts; to a drained host it did not go", m.Name, homeRegion, was, there, m.Addr), nil
}

// arrived waits until a Machine is started on a host, and notes its address there.
func (w *world) arrived(ctx context.Context, m *nettest.Machine, to *nettest.Host) error {
	return nettest.Eventually(ctx, "the Machine is started on "+to.Name, func(ctx context.Context) error {
		answer, err := w.host.Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		now := answer.JSON200
		if now.HostName != to.Name || now.State != "started" || now.Migration != nil {
			return fmt.Errorf("it is %s on %s", now.State, now.HostName)
		}
		m.Addr, err = netip.ParseAddr(now.PrivateIP)
		return err
	})
}
