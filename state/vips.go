package state

import (
	"context"
	"net/netip"

	"github.com/sixpn/sixpn"
)

// How many Flycast addresses there may be: a host's table has room for 65536.
const (
	MaxAppVIPs     = 64
	MaxNetworkVIPs = 4096
)

// AllocateVIP gives an app a Flycast address. With an empty org it is one of the
// app's own network or, when network is set, of that network of the app's org. With
// an org, clients of that org's network (the default one when network is empty)
// reach the app by it; when that is not the app's own network, the address is a
// cross-network one.
func (s *Store) AllocateVIP(ctx context.Context, app, org, network string) (VIP, int64, error) {
	var vip VIP
	created := now()
	revision, err := s.transact(ctx, creating, "allocate an address for app "+app, func(t *transaction) error {
		a, err := t.app(app)
		if err != nil {
			return err
		}
		vip = VIP{Network: a.Network, App: app, CreatedAt: created}
		if org != "" || network != "" {
			clients := a.Org
			if org != "" {
				clients = org
			}
			if err := t.mustHaveOrg(clients); err != nil {
				return err
			}
			if vip.Network, err = t.networkNamed(clients, network); err != nil {
				return err
			}
		}
		if err := t.mustHaveRoom(vip); err != nil {
			return err
		}
		if vip.Number, err = t.number(counterVIPs(vip.Network), 1); err != nil {
			return err
		}
		t.put(indexVIP(app, vip.Addr()), "")
		return t.create(keyVIP(vip.Network, vip.Number), vip)
	})
	if err != nil {
		return VIP{}, 0, err
	}
	return vip, revision, nil
}

func (t *transaction) mustHaveRoom(v VIP) error {
	n, err := t.count(indexAppVIPs(v.App))
	if err != nil {
		return err
	}
	if n >= MaxAppVIPs {
		return refuse(Exhausted, "app", "the app %q has %d Flycast addresses, the most an app may have: release one with `sixpn ips release`", v.App, n)
	}
	if n, err = t.count(keyVIPs(v.Network)); err != nil {
		return err
	}
	if n >= MaxNetworkVIPs {
		return refuse(Exhausted, "network", "the network %v has %d Flycast addresses, the most a network may have: release one with `sixpn ips release`", v.Network, n)
	}
	return nil
}

// ReleaseVIP takes a Flycast address from an app. The address is never given out again.
func (s *Store) ReleaseVIP(ctx context.Context, app string, addr netip.Addr) (int64, error) {
	return s.transact(ctx, creating, "release "+addr.String(), func(t *transaction) error {
		if _, err := t.app(app); err != nil {
			return err
		}
		missing := refuse(NotFound, "ip", "the app %q has no Flycast address %v: look with `sixpn ips list -a %s`", app, addr, app)
		kind, f := sixpn.Classify(addr)
		if kind != sixpn.KindVIP {
			return missing
		}
		key := keyVIP(f.Network, sixpn.VIPNumber(f))
		r, found, err := load[VIP](t, key)
		if err != nil {
			return err
		}
		if !found || r.Value.App != app {
			return missing
		}
		t.remove(key)
		t.remove(indexVIP(app, addr))
		return nil
	})
}
