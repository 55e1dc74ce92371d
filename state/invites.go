package state

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"time"
)

// Invitation lets one host into the fleet. Of its secret only the hash is stored: who
// reads the store, or a backup of it, cannot join by it.
type Invitation struct {
	ID        string    `json:"id"`
	Secret    string    `json:"secret"`           // SHA-256 of it, in hex
	Region    string    `json:"region,omitempty"` // where the host must be, "" for anywhere
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// Of the host that has used it: when, its name, and the SHA-256 of its public key
	// in hex, by which it is known again when the answer was lost.
	UsedAt   time.Time `json:"used_at,omitzero"`
	UsedName string    `json:"used_name,omitempty"`
	UsedBy   string    `json:"used_by,omitempty"`
}

// NewInvitation is what CreateInvitation makes one of.
type NewInvitation struct {
	ID       string
	Secret   []byte
	Region   string        // "" for anywhere
	Lifetime time.Duration // up to MaxInvitationLife
}

// UseOfInvitation is what a host that joins shows.
type UseOfInvitation struct {
	ID     string
	Secret []byte
	Key    [sha256.Size]byte // hash of the host's public key
	Name   string            // of the host
	Region string            // where it says it is
}

const (
	// MaxInvitationLife is the longest life of an invitation.
	MaxInvitationLife = 30 * 24 * time.Hour
	// MaxInvitations is how many may be kept at a time.
	MaxInvitations = 1000
	// invitationKept is how long an expired one is kept, so that who comes too late is
	// told that, and who lost the answer can ask again.
	invitationKept = 24 * time.Hour
	// joiningTime is how long a host that was let in at the last moment still has until
	// it must have its record.
	joiningTime = 10 * time.Minute
)

const askAgain = "ask for a new one with: sixpn hosts invite"

// CreateInvitation stores one, and forgets those that expired long ago.
func (s *Store) CreateInvitation(ctx context.Context, n NewInvitation) (Invitation, int64, error) {
	if n.Region != "" {
		if err := ValidateRegion(n.Region); err != nil {
			return Invitation{}, 0, err
		}
	}
	if n.Lifetime <= 0 || n.Lifetime > MaxInvitationLife {
		return Invitation{}, 0, refuse(Invalid, "expires", "an invitation cannot live for %v: expected more than 0 and at most %v", n.Lifetime, MaxInvitationLife)
	}
	at := now()
	made := Invitation{ID: n.ID, Secret: hashOf(n.Secret), Region: n.Region, CreatedAt: at, ExpiresAt: at.Add(n.Lifetime)}
	revision, err := s.transact(ctx, creating, "create an invitation", func(t *transaction) error {
		all, err := t.list(keyInvitations)
		if err != nil {
			return err
		}
		kept := 0
		for _, kv := range all {
			key := string(kv.Key)
			old, err := readable[Invitation](key, kv.Value, kv.ModRevision)
			if err == nil && at.Sub(old.Value.ExpiresAt) > invitationKept {
				t.remove(key)
				continue
			}
			kept++
		}
		if kept >= MaxInvitations {
			return refuse(Exhausted, "", "there are %d invitations already: wait until some have expired", kept)
		}
		return t.create(keyInvitations+made.ID, made)
	})
	return made, revision, err
}

// admitsUntil is until when the host that used an invitation may use the store, while it
// has no record yet: as long as the invitation would have been good.
func (i Invitation) admitsUntil() time.Time {
	if end := i.UsedAt.Add(joiningTime); end.After(i.ExpiresAt) {
		return end
	}
	return i.ExpiresAt
}

// forgetInvitations removes those that a host used, so that it cannot come back by them.
func (t *transaction) forgetInvitations(h Host) error {
	all, err := t.list(keyInvitations)
	if err != nil {
		return err
	}
	for _, kv := range all {
		i, err := readable[Invitation](string(kv.Key), kv.Value, kv.ModRevision)
		if err == nil && i.Value.UsedBy != "" && (i.Value.UsedBy == h.CertificateKey || i.Value.UsedName == h.Name) {
			t.remove(string(kv.Key))
		}
	}
	return nil
}

// CheckInvitation says whether there is such an invitation with this secret, used or not.
// Its errors are those of UseInvitation.
func (s *Store) CheckInvitation(ctx context.Context, id string, secret []byte) error {
	_, err := s.transact(ctx, "", "look at invitation "+id, func(t *transaction) error {
		_, err := invitation(t, id, secret)
		return err
	})
	return err
}

// invitation finds one by its secret. Who only guesses learns nothing from the message,
// not even whether there is one of this ID.
func invitation(t *transaction, id string, secret []byte) (Record[Invitation], error) {
	record, found, err := load[Invitation](t, keyInvitations+id)
	if err != nil {
		return record, err
	}
	// Where there is none the secret is compared with nothing, which no hash is.
	if right := subtle.ConstantTimeCompare([]byte(record.Value.Secret), []byte(hashOf(secret))) == 1; found && right {
		return record, nil
	}
	kind := NotFound
	if found {
		kind = Invalid
	}
	return record, refuse(kind, "token", "this fleet knows no invitation %q with this secret: the token was forged or damaged, is of another fleet, expired long ago, or let in a host that was removed since; %s", id, askAgain)
}

// UseInvitation is done once for each; again by the same key it changes nothing. The
// error is of kind Invalid for a token that was forged, has expired or is for another
// region, NotFound for one that the store does not know, Conflict for one that another
// host has used; its field is "token" or "region".
func (s *Store) UseInvitation(ctx context.Context, u UseOfInvitation) (Invitation, error) {
	var used Invitation
	_, err := s.transact(ctx, creating, "use invitation "+u.ID, func(t *transaction) error {
		record, err := invitation(t, u.ID, u.Secret)
		if err != nil {
			return err
		}
		i := &record.Value
		key := hex.EncodeToString(u.Key[:])
		switch {
		case i.UsedBy == key: // its answer was lost
			used = *i
			return nil
		case i.UsedBy != "":
			return refuse(Conflict, "token", "invitation %q was used at %s by host %q, and lets in one host only; %s", u.ID, i.UsedAt.Format(time.RFC3339), i.UsedName, askAgain)
		case now().After(i.ExpiresAt):
			return refuse(Invalid, "token", "invitation %q expired at %s; %s", u.ID, i.ExpiresAt.Format(time.RFC3339), askAgain)
		case i.Region != "" && i.Region != u.Region:
			return refuse(Invalid, "region", "invitation %q is for a host in region %q, and this one says that it is in %q: start it with --region %s", u.ID, i.Region, u.Region, i.Region)
		}
		i.UsedAt, i.UsedName, i.UsedBy = now(), u.Name, key
		used = *i
		return write(t, keyInvitations+u.ID, record)
	})
	return used, err
}

func hashOf(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}
