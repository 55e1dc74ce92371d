package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// migrate: a Machine moves to the other host and back. Its id, its name, and what leads
// to it stay, its address does not.
func migrate(ctx context.Context, w *world) (detail string, err error) {
	const app = "roaming"
	vip, remove, err := w.app(ctx, app)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	m, err := w.host.Run(ctx, app, nettest.Options{Name: app + "-1", Services: services}, w.host.Payload(server()...)...)
	if err != nil {
		return "", err
	}
	addresses := []netip.Addr{m.Addr}
	for _, to := range []*nettest.Host{w.second(), w.host} {
		left := m.Addr
		if err := errors.Join(m.Migrate(ctx, to), w.fleet.Settle(ctx)); err != nil {
			return "", err
		}
		addresses = append(addresses, m.Addr)
		for _, asker := range []*nettest.Machine{w.client, w.away} {
			for _, name := range []string{app + ".internal", m.ID + ".vm." + app + ".internal"} {
				// The host that it left hears of it a moment later.
				err := nettest.Eventually(ctx, name+" follows", func(ctx context.Context) error {
					return answers(ctx, asker, "AAAA", name, m.Addr.String())
				})
				if err != nil {
					return "", err
				}
			}
			if _, err := talks(ctx, asker, m); err != nil {
				return "", err
			}
			got, err := connections(ctx, asker, "-count", fmt.Sprint(probes), at(vip, vipPort))
			if err == nil && got.Answers[m.ID] != probes {
				err = fmt.Errorf("%s: of %d connections to %s %d came through: %v", asker.Name, probes, vip, got.OK, got.Errors)
			}
			if err != nil {
				return "", err
			}
			echo, err := ping(ctx, asker, "-timeout", "300ms", left.String())
			if err == nil && echo.Received > 0 {
				err = fmt.Errorf("%s still gets an answer from %s, which the Machine has left", asker.Name, left)
			}
			if err != nil {
				return "", err
			}
		}
	}
	answer, err := w.host.Client.MigrateMachineWithResponse(ctx, app, m.ID, &api.MigrateMachineParams{}, api.MigrateRequest{HostName: "nowhere"})
	if api.Check(answer, err) == nil {
		return "", errors.New("a move to a host that does not exist was accepted")
	}
	if _, err := talks(ctx, w.client, m); err != nil {
		return "", fmt.Errorf("after a move that was refused: %w", err)
	}
	return fmt.Sprintf("%s was at %s, then on the other host at %s, and back at %s: names and Flycast led to it each time, nothing to where it had been", m.Name, addresses[0], addresses[1], addresses[2]), nil
}
