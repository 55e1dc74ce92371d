package state

import (
	"context"
	"time"
)

// Authority is the certificate authority of the fleet, one for good. Its key is in the
// store, because every host must be able to renew its own certificate and to let another
// in, also when the host that made the authority is lost. Whoever can read it here can
// write every record of the store as well, so the key gives nobody more than he has.
type Authority struct {
	Certificate string    `json:"certificate"` // PEM
	Key         string    `json:"key"`         // PEM, PKCS #8
	CreatedAt   time.Time `json:"created_at"`
}

// What hosts join by is below fleet/, and never part of a snapshot.
//
//	fleet/authority                Authority
//	fleet/invitations/<id>         Invitation
const (
	keyAuthority   = root + "fleet/authority"
	keyInvitations = root + "fleet/invitations/"
)

// Authority reads the one there is, from the store itself. The error is of kind NotFound
// while nobody has created it.
func (s *Store) Authority(ctx context.Context) (Authority, error) {
	var record Record[Authority]
	_, err := s.transact(ctx, "", "read the certificate authority", func(t *transaction) (err error) {
		var found bool
		record, found, err = load[Authority](t, keyAuthority)
		if err == nil && !found {
			return refuse(NotFound, "", "the fleet has no certificate authority yet: start an agent with --underlay on a host that has the store")
		}
		return err
	})
	return record.Value, err
}

// CreateAuthority stores a new authority, unless there is one: the first one stays, and
// is returned.
func (s *Store) CreateAuthority(ctx context.Context, a Authority) (Authority, error) {
	a.CreatedAt = now()
	var kept Authority
	_, err := s.transact(ctx, creating, "create the certificate authority", func(t *transaction) error {
		record, found, err := load[Authority](t, keyAuthority)
		if err != nil {
			return err
		}
		if found {
			kept = record.Value
			return nil
		}
		kept = a
		return t.create(keyAuthority, a)
	})
	return kept, err
}
