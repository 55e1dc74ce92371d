package state

import (
	"context"
	"time"

	"github.com/sixpn/sixpn"
)

// CreateNetwork makes another network of an org.
func (s *Store) CreateNetwork(ctx context.Context, org, name string) (Network, int64, error) {
	if err := ValidateNetworkName(name); err != nil {
		return Network{}, 0, err
	}
	var network Network
	created := now()
	revision, err := s.transact(ctx, creating, "create network "+name, func(t *transaction) error {
		if err := t.mustHaveOrg(org); err != nil {
			return err
		}
		taken, _, err := t.get(nameNetwork(org, name))
		if err != nil {
			return err
		}
		if taken != nil {
			return refuse(Conflict, "network", "the org %q has a network %q already: use it, or choose another name", org, name)
		}
		network, err = t.createNetwork(org, name, created)
		return err
	})
	if err != nil {
		return Network{}, 0, err
	}
	return network, revision, nil
}

func (t *transaction) createNetwork(org, name string, created time.Time) (Network, error) {
	number, err := t.number(counterNetworks, 1)
	if err != nil {
		return Network{}, err
	}
	n := Network{ID: sixpn.Network(number), Org: org, Name: name, CreatedAt: created}
	t.put(nameNetwork(org, name), hex8(n.ID))
	return n, t.create(keyNetwork(n.ID), n)
}

// DeleteNetwork removes a network of an org, which must have no apps and no Flycast
// addresses any more. The default one goes with its org.
func (s *Store) DeleteNetwork(ctx context.Context, org, name string) (int64, error) {
	return s.transact(ctx, creating, "delete network "+name, func(t *transaction) error {
		if err := t.mustHaveOrg(org); err != nil {
			return err
		}
		if name == "" || name == DefaultNetwork {
			return refuse(Conflict, "network", "every org has its network %q: it goes with the org, by `sixpn orgs delete %s`", DefaultNetwork, org)
		}
		network, err := t.networkNamed(org, name)
		if err != nil {
			return err
		}
		t.remove(nameNetwork(org, name))
		return t.removeNetwork(network, "network", "network "+name)
	})
}

// removeNetwork removes an empty network, except for its name. Its counters stay: a
// number that was given out in it is never given out again. An app that comes at
// the same time reads the name, so one of the two loses.
func (t *transaction) removeNetwork(n sixpn.Network, field, what string) error {
	apps, err := t.count(keyApps(n))
	if err != nil {
		return err
	}
	if apps > 0 {
		return refuse(Conflict, field, "the %s has apps (%d): destroy them with `sixpn apps destroy`, or move them with `sixpn apps move`", what, apps)
	}
	vips, err := t.count(keyVIPs(n))
	if err != nil {
		return err
	}
	if vips > 0 {
		return refuse(Conflict, field, "apps have Flycast addresses for the clients of the %s (%d): release them with `sixpn ips release`", what, vips)
	}
	t.remove(keyNetwork(n))
	t.removeAll(keyNetworkDeleted(n))
	t.remove(changedNetwork(n))
	t.remove(changedVIPs(n))
	return nil
}

// networkNamed finds the number of a network of an existing org; "" is the default one.
func (t *transaction) networkNamed(org, name string) (sixpn.Network, error) {
	if name == "" {
		name = DefaultNetwork
	}
	if err := ValidateNetworkName(name); err != nil {
		return 0, err
	}
	n, err := t.owner(nameNetwork(org, name))
	if err == nil && n == 0 {
		return 0, refuse(NotFound, "network", "the org %q has no network %q: create it with `sixpn networks create %s --org %s`, or look with `sixpn networks list --org %s`", org, name, name, org, org)
	}
	return sixpn.Network(n), err
}

// owner reads who has a unique name: a number, 0 for nobody.
func (t *transaction) owner(key string) (uint32, error) {
	value, _, err := t.get(key)
	if err != nil || value == nil {
		return 0, err
	}
	n, ok := parseHex(string(value))
	if !ok {
		return 0, refuse(Unavailable, "", "the key %s holds %.40q, expected 8 hexadecimal digits: restore the store from a backup", key, value)
	}
	return n, nil
}
