package state

import (
	"context"
	"time"

	"github.com/sixpn/sixpn"
)

// now is the time of a record as it comes back from the store: UTC, no monotonic part.
func now() time.Time { return time.Now().UTC().Round(0) }

// CreateOrg makes an org and its default network. An empty name is the slug.
func (s *Store) CreateOrg(ctx context.Context, slug, name string) (Org, int64, error) {
	if name == "" {
		name = slug
	}
	if err := ValidateOrgSlug(slug); err != nil {
		return Org{}, 0, err
	}
	if err := ValidateOrgName(name); err != nil {
		return Org{}, 0, err
	}
	org := Org{Slug: slug, Name: name, CreatedAt: now()}
	revision, err := s.transact(ctx, creating, "create org "+slug, func(t *transaction) error {
		taken, _, err := t.get(keyOrg(slug))
		if err != nil {
			return err
		}
		if taken != nil {
			return refuse(Conflict, "slug", "the org %q exists already: use it, or choose another slug", slug)
		}
		if err := t.create(keyOrg(slug), org); err != nil {
			return err
		}
		_, err = t.createNetwork(slug, DefaultNetwork, org.CreatedAt)
		return err
	})
	if err != nil {
		return Org{}, 0, err
	}
	return org, revision, nil
}

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

func (t *transaction) mustHaveOrg(slug string) error {
	if err := ValidateOrgSlug(slug); err != nil {
		return refuse(Invalid, "org", "%.80q is not the slug of an org: %s", slug, labelRule)
	}
	value, _, err := t.get(keyOrg(slug))
	if err == nil && value == nil {
		return refuse(NotFound, "org", "there is no org %q: create it with `sixpn orgs create %s`, or look with `sixpn orgs list`", slug, slug)
	}
	return err
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
		return 0, refuse(NotFound, "network", "the org %q has no network %q: leave it out for the default one", org, name)
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

// CreateApp makes an app. An empty network is the default one of its org.
func (s *Store) CreateApp(ctx context.Context, name, org, network string) (App, int64, error) {
	if err := ValidateAppName(name); err != nil {
		return App{}, 0, err
	}
	app := App{Name: name, Org: org, CreatedAt: now()}
	revision, err := s.transact(ctx, creating, "create app "+name, func(t *transaction) error {
		if err := t.mustHaveOrg(org); err != nil {
			return err
		}
		taken, err := t.owner(nameApp(name))
		if err != nil {
			return err
		}
		if taken != 0 {
			return refuse(Conflict, "name", "the name %q is taken: names of apps are unique in the fleet; choose another", name)
		}
		if app.Network, err = t.networkNamed(org, network); err != nil {
			return err
		}
		t.put(nameApp(name), hex8(app.Network))
		return t.create(keyApp(app.Network, name), app)
	})
	if err != nil {
		return App{}, 0, err
	}
	return app, revision, nil
}

// app finds an app by its name.
func (t *transaction) app(name string) (App, error) {
	missing := refuse(NotFound, "app", "there is no app %.80q: create it with `sixpn apps create`, or look with `sixpn apps list`", name)
	if ValidateAppName(name) != nil {
		return App{}, missing // also keeps a '/' out of keys
	}
	n, err := t.owner(nameApp(name))
	if err != nil {
		return App{}, err
	}
	if n == 0 {
		return App{}, missing
	}
	r, found, err := load[App](t, keyApp(sixpn.Network(n), name))
	if err == nil && !found {
		err = missing
	}
	return r.Value, err
}
