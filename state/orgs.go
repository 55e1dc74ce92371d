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

// DeleteOrg removes an org and its networks. It is refused while the org has apps, or
// while anyone's app has a Flycast address in one of its networks.
func (s *Store) DeleteOrg(ctx context.Context, slug string) (int64, error) {
	return s.transact(ctx, creating, "delete org "+slug, func(t *transaction) error {
		if err := t.mustHaveOrg(slug); err != nil {
			return err
		}
		networks, err := t.list(nameNetworks(slug))
		if err != nil {
			return err
		}
		for _, kv := range networks {
			number, err := t.owner(string(kv.Key))
			if err != nil {
				return err
			}
			if err := t.removeNetwork(sixpn.Network(number), "org", "org "+slug); err != nil {
				return err
			}
			t.remove(string(kv.Key))
		}
		t.remove(keyOrg(slug))
		return nil
	})
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
