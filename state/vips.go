package state

import (
	"cmp"
	"context"
	"net/netip"
	"strings"

	"github.com/sixpn/sixpn"
)

// How many Flycast addresses there may be: a host's table has room for 65536.
const (
	MaxAppVIPs     = 64
	MaxNetworkVIPs = 4096
)

// NewVIP is what a Flycast address is allocated for.
type NewVIP struct {
	// ID, which may be empty, makes the request one that can be repeated safely: an app
	// gets one address by it.
	ID           string
	App          string
	Org, Network string // see AllocateVIP
}

// AllocateVIP gives an app a Flycast address. With an empty org it is one of the
// app's own network or, when network is set, of that network of the app's org. With
// an org, clients of that org's network (the default one when network is empty)
// reach the app by it; when that is not the app's own network, the address is a
// cross-network one.
func (s *Store) AllocateVIP(ctx context.Context, app, org, network string) (VIP, int64, error) {
	return s.CreateVIP(ctx, NewVIP{App: app, Org: org, Network: network})
}

// CreateVIP is AllocateVIP for requests that may be repeated. The same request again
// returns the address of the first, with the revision of its record; another one with
// the same id is refused.
func (s *Store) CreateVIP(ctx context.Context, n NewVIP) (VIP, int64, error) {
	if n.ID != "" {
		if err := ValidateRequestID(n.ID); err != nil {
			return VIP{}, 0, err
		}
	}
	var vip VIP
	var existing *Record[VIP]
	created := now()
	revision, err := s.transact(ctx, creating, "allocate an address for app "+n.App, func(t *transaction) error {
		a, err := t.app(n.App)
		if err != nil {
			return err
		}
		if err := a.mustStay(); err != nil {
			return err
		}
		vip = VIP{Network: a.Network, App: n.App, Request: n.ID, CreatedAt: created}
		if n.Org != "" || n.Network != "" {
			clients := cmp.Or(n.Org, a.Org)
			if err := t.mustHaveOrg(clients); err != nil {
				return err
			}
			if vip.Network, err = t.networkNamed(clients, n.Network); err != nil {
				return err
			}
		}
		if existing, err = t.sameVIP(vip); err != nil || existing != nil {
			return err
		}
		if err := t.mustHaveRoom(vip.Network, 1); err != nil {
			return err
		}
		if vip.Number, err = t.number(counterVIPs(vip.Network), 1); err != nil {
			return err
		}
		t.put(indexVIP(vip.App, vip.Addr()), vip.Request)
		return t.create(keyVIP(vip.Network, vip.Number), vip)
	})
	switch {
	case err != nil:
		return VIP{}, 0, err
	case existing != nil:
		return existing.Value, existing.ModRevision, nil
	default:
		return vip, revision, nil
	}
}

// sameVIP finds the address that an earlier try of the same request allocated, and
// that the app may have another one if there is none.
func (t *transaction) sameVIP(v VIP) (*Record[VIP], error) {
	index, err := t.list(indexAppVIPs(v.App))
	if err != nil {
		return nil, err
	}
	for _, kv := range index {
		if v.Request == "" || string(kv.Value) != v.Request {
			continue
		}
		r, found, err := t.indexedVIP(v.App, string(kv.Key))
		if err != nil {
			return nil, err
		}
		if !found || r.Value.Network != v.Network {
			return nil, refuse(Conflict, "id", "the id %s is that of another request, for an address of another network: use a new id", v.Request)
		}
		return &r, nil
	}
	if n := len(index); n >= MaxAppVIPs {
		return nil, refuse(Exhausted, "app", "the app %q has %d Flycast addresses, the most an app may have: release one with `sixpn ips release`", v.App, n)
	}
	return nil, nil
}

// indexedVIP reads the address that a key of the index is about.
func (t *transaction) indexedVIP(app, key string) (Record[VIP], bool, error) {
	addr, err := netip.ParseAddr(strings.TrimPrefix(key, indexAppVIPs(app)))
	if err != nil {
		return Record[VIP]{}, false, refuse(Unavailable, "", "the key %s holds no address: restore the store from a backup", key)
	}
	_, f := sixpn.Classify(addr)
	return load[VIP](t, keyVIP(f.Network, sixpn.VIPNumber(f)))
}

// appVIPs reads the addresses of an app; like appMachines, it reads all there are.
func (t *transaction) appVIPs(app string) ([]Record[VIP], error) {
	index, err := t.list(indexAppVIPs(app))
	if err != nil {
		return nil, err
	}
	var vips []Record[VIP]
	for _, kv := range index {
		r, found, err := t.indexedVIP(app, string(kv.Key))
		if err != nil {
			return nil, err
		}
		if found {
			vips = append(vips, r)
		}
	}
	return vips, nil
}

func (t *transaction) removeVIP(v VIP) {
	t.remove(keyVIP(v.Network, v.Number))
	t.remove(indexVIP(v.App, v.Addr()))
}

// mustHaveRoom checks that a network takes that many more addresses.
func (t *transaction) mustHaveRoom(network sixpn.Network, more int) error {
	n, err := t.count(keyVIPs(network))
	if err != nil {
		return err
	}
	if n+int64(more) > MaxNetworkVIPs {
		return refuse(Exhausted, "network", "the network %v has %d Flycast addresses, of the %d that a network may have: release some with `sixpn ips release`", network, n, MaxNetworkVIPs)
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
		r, found, err := load[VIP](t, keyVIP(f.Network, sixpn.VIPNumber(f)))
		if err != nil {
			return err
		}
		if !found || r.Value.App != app {
			return missing
		}
		t.removeVIP(r.Value)
		return nil
	})
}
