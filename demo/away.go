package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// dnsRemote: a Machine on another host has the same names on every host.
func dnsRemote(ctx context.Context, w *world) (string, error) {
	name := w.away.ID + ".vm.away.internal"
	for _, asker := range []*nettest.Machine{w.client, w.away} {
		if err := answers(ctx, asker, "AAAA", "away.internal", w.away.Addr.String(), w.awayBig.Addr.String()); err != nil {
			return "", err
		}
		if err := answers(ctx, asker, "AAAA", name, w.away.Addr.String()); err != nil {
			return "", err
		}
		if err := answers(ctx, asker, "AAAA", "web.internal", w.web[0].Addr.String(), w.web[1].Addr.String()); err != nil {
			return "", err
		}
	}
	err := answers(ctx, w.outpost, "AAAA", "vault.internal", w.vault.Addr.String())
	return fmt.Sprintf("on both hosts %s is %s, and web.internal and away.internal are the same", name, w.away.Addr), err
}

// pair runs a server of one app on each host; remove takes both, and the app, away.
func (w *world) pair(ctx context.Context, app string) (vip netip.Addr, here, there *nettest.Machine, remove func() error, err error) {
	vip, remove, err = w.app(ctx, app)
	if err != nil {
		return vip, nil, nil, nil, err
	}
	start := func(host *nettest.Host, name string) *nettest.Machine {
		m, runErr := host.Run(ctx, app, nettest.Options{Name: name, Services: services}, host.Payload(server()...)...)
		err = errors.Join(err, runErr)
		return m
	}
	here, there = start(w.host, app+"-here"), start(w.second(), app+"-there")
	if err = errors.Join(err, w.fleet.Settle(ctx)); err != nil {
		err = errors.Join(err, remove())
	}
	return vip, here, there, remove, err
}

// dnsNearestByRegion: what is nearest depends on the host where the question is asked.
func dnsNearestByRegion(ctx context.Context, w *world) (detail string, err error) {
	_, here, there, remove, err := w.pair(ctx, "nearby")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	for _, row := range []struct {
		asker *nettest.Machine
		want  []string
	}{
		{w.client, []string{here.Addr.String(), there.Addr.String()}},
		{w.away, []string{there.Addr.String(), here.Addr.String()}},
	} {
		// The order counts, so it is asked often.
		for range 8 {
			got, err := lookup(ctx, row.asker, "AAAA", "top2.nearest.of.nearby.internal")
			if err != nil {
				return "", err
			}
			if !slices.Equal(got.Answers, row.want) {
				return "", fmt.Errorf("to %s, top2.nearest.of.nearby.internal is %v, expected %v in this order", row.asker.Name, got.Answers, row.want)
			}
		}
		if err := answers(ctx, row.asker, "AAAA", "top1.nearest.of.nearby.internal", row.want[0]); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("seen from %s the server there comes first, seen from %s the one there, each time", homeRegion, awayRegion), nil
}

// remoteBackend: a Flycast address leads to a Machine on another host.
func remoteBackend(ctx context.Context, w *world) (detail string, err error) {
	vip, err := w.host.AllocateVIP(ctx, appAway, "")
	if err != nil {
		return "", err
	}
	defer func() {
		answer, removeErr := w.host.Client.DeleteIPAssignmentWithResponse(context.WithoutCancel(ctx), appAway, vip.String(), &api.DeleteIPAssignmentParams{})
		err = errors.Join(err, api.Check(answer, removeErr))
	}()
	const count = 40
	tcp, err := connections(ctx, w.client, "-count", fmt.Sprint(count), at(vip, vipPort))
	if err != nil {
		return "", err
	}
	if tcp.OK != count || tcp.Answers[w.away.ID]+tcp.Answers[w.awayBig.ID] != count || tcp.Answers[w.away.ID]*tcp.Answers[w.awayBig.ID] == 0 {
		return "", fmt.Errorf("of %d connections %d came through, by server %v: %v; expected all, and both servers", count, tcp.OK, tcp.Answers, tcp.Errors)
	}
	udp, err := datagrams(ctx, w.client, "-count", fmt.Sprint(count), "-flows", fmt.Sprint(count/4), at(vip, udpPort))
	if err != nil {
		return "", err
	}
	if udp.Received != count {
		return "", fmt.Errorf("only %d of %d datagrams were answered: %v", udp.Received, count, udp.Errors)
	}
	return fmt.Sprintf("client-1 → away.flycast: %d connections and %d datagrams, all answered by the two servers on the other host", count, count), nil
}

// nearestFirst: each host's clients get the backend on their own side, and the other
// one while there is none.
func nearestFirst(ctx context.Context, w *world) (detail string, err error) {
	vip, here, there, remove, err := w.pair(ctx, "sides")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, remove()) }()
	const count = 20
	all := func(from, to *nettest.Machine) error {
		got, err := connections(ctx, from, "-count", fmt.Sprint(count), at(vip, vipPort))
		if err == nil && (got.OK != count || got.Answers[to.ID] != count) {
			err = fmt.Errorf("%s: of %d connections %d came through, by server %v: %v; expected all by %s", from.Name, count, got.OK, got.Answers, got.Errors, to.Name)
		}
		return err
	}
	if err := errors.Join(all(w.client, here), all(w.away, there)); err != nil {
		return "", err
	}
	if err := here.Stop(ctx); err != nil {
		return "", err
	}
	if err := here.Wait(ctx, "stopped"); err != nil {
		return "", err
	}
	err = nettest.Eventually(ctx, "the other side serves both", func(context.Context) error {
		return errors.Join(all(w.client, there), all(w.away, there))
	})
	return "each host's client gets the backend of its own region, all of the time; without that, the one of the other", err
}
