package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

// lease is how long a host may be unheard before the others leave it out, and patience
// what a host may take beyond that to notice.
const (
	lease         = 10 * time.Second
	leasePatience = 5 * time.Second
	// refusalTimeout is how long an agent may try to join before it counts as let in.
	refusalTimeout = 20 * time.Second
)

// hostJoin: an invitation lets one host in, once.
func hostJoin(ctx context.Context, w *world) (detail string, err error) {
	token, err := w.host.Invite(ctx)
	if err != nil {
		return "", err
	}
	third, err := w.fleet.NewHost(awayRegion)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, w.fleet.Remove(context.WithoutCancel(ctx), third)) }()
	forged, err := nettest.ForgeToken(token)
	if err != nil {
		return "", err
	}
	if err := refused(ctx, third, forged); err != nil {
		return "", fmt.Errorf("a forged token: %w", err)
	}
	if err := third.StartAgent(ctx, "--join", token); err != nil {
		return "", err
	}
	if err := w.fleet.Meet(ctx); err != nil {
		return "", err
	}
	m, err := third.Run(ctx, appAway, nettest.Options{Name: "away-third", Services: services}, third.Payload(server()...)...)
	if err != nil {
		return "", err
	}
	for _, from := range []*nettest.Machine{w.client, w.away} {
		if _, err := talks(ctx, from, m); err != nil {
			return "", err
		}
	}
	if err := m.Destroy(ctx); err != nil {
		return "", err
	}
	fourth, err := w.fleet.NewHost(awayRegion)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, w.fleet.Remove(context.WithoutCancel(ctx), fourth)) }()
	if err := refused(ctx, fourth, token); err != nil {
		return "", fmt.Errorf("a used token: %w", err)
	}
	return "a third host joined by a token, and its Machine talks with those of both others; a forged token and a used one let nobody in", nil
}

// refused demands that a host's agent ends because of its token.
func refused(ctx context.Context, host *nettest.Host, token string) error {
	limited, cancel := context.WithTimeout(ctx, refusalTimeout)
	defer cancel()
	if err := host.TryAgent(limited, "--join", token); err == nil || limited.Err() != nil {
		return fmt.Errorf("it was not refused: %w", errors.Join(err, limited.Err()))
	}
	return nil
}

// storeOutage: while the host that has the store is without its agent, the other goes on
// answering names and forwarding, within itself and to the first.
func storeOutage(ctx context.Context, w *world) (string, error) {
	if err := w.host.KillAgent(); err != nil {
		return "", err
	}
	served := func() error {
		for range probes {
			if err := answers(ctx, w.away, "AAAA", "web.internal", w.web[0].Addr.String(), w.web[1].Addr.String()); err != nil {
				return err
			}
			if _, err := talks(ctx, w.outpost, w.vault); err != nil {
				return err
			}
			if _, err := talks(ctx, w.away, w.awayBig); err != nil {
				return err
			}
		}
		return nil
	}
	var lost error
	began := time.Now()
	// Longer than a lease: what the store does not renew must not be taken for gone.
	for lost == nil && time.Since(began) < lease+leasePatience && ctx.Err() == nil {
		lost = served()
	}
	away := time.Since(began)
	if err := errors.Join(lost, w.startAgent(ctx), ctx.Err()); err != nil {
		return "", err
	}
	return fmt.Sprintf("the store was away for %.0f s: on the other host every name was answered, and every connection, datagram and ping, also to the first host", away.Seconds()), served()
}

// hostLoss: a host that nobody hears any more leaves the names of the others.
func hostLoss(ctx context.Context, w *world) (string, error) {
	before := answers(ctx, w.client, "AAAA", "away.internal", w.away.Addr.String(), w.awayBig.Addr.String())
	if err := errors.Join(before, w.second().Uplink.Cut()); err != nil {
		return "", err
	}
	began := time.Now()
	err := nettest.Eventually(ctx, "the lost host's Machines leave the names", func(ctx context.Context) error {
		got, err := lookup(ctx, w.client, "AAAA", "away.internal")
		if err == nil && (got.Rcode != "NOERROR" || len(got.Answers) > 0) {
			err = fmt.Errorf("away.internal is %s %v, expected no address", got.Rcode, got.Answers)
		}
		return err
	})
	took := time.Since(began)
	if err == nil && took > lease+leasePatience {
		err = fmt.Errorf("it took %v, expected the lease of %v and a little", took, lease)
	}
	if err != nil {
		return "", err
	}
	// Both sides go on within themselves.
	if _, err := talks(ctx, w.client, w.web[0]); err != nil {
		return "", err
	}
	_, err = talks(ctx, w.away, w.awayBig)
	return fmt.Sprintf("cut off, the second host left the names after %.1f s; both sides go on within themselves", took.Seconds()), err
}

// hostRejoin: when it is heard again everything is as before.
func hostRejoin(ctx context.Context, w *world) (string, error) {
	if err := w.second().Uplink.Heal(); err != nil {
		return "", err
	}
	began := time.Now()
	err := nettest.Eventually(ctx, "the host's Machines are back", func(ctx context.Context) error {
		return answers(ctx, w.client, "AAAA", "away.internal", w.away.Addr.String(), w.awayBig.Addr.String())
	})
	if err != nil {
		return "", err
	}
	took := time.Since(began)
	if _, err := talks(ctx, w.client, w.away); err != nil {
		return "", err
	}
	_, err = talks(ctx, w.away, w.web[0])
	return fmt.Sprintf("heard again, the second host was back in the names after %.1f s, and reached as before", took.Seconds()), err
}
