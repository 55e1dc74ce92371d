package state_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

func TestInvitation(t *testing.T) {
	t.Parallel()
	s := running(t)
	ctx := within(t)
	secret := []byte("0123456789abcdef")
	made, revision, err := s.CreateInvitation(ctx, state.NewInvitation{ID: "one", Secret: secret, Region: "fra", Lifetime: time.Hour})
	must(t, err)
	if revision == 0 || made.Secret == string(secret) || made.Region != "fra" || made.ExpiresAt.Sub(made.CreatedAt) != time.Hour {
		t.Errorf("invitation %+v of revision %d, expected one of an hour for fra without its secret", made, revision)
	}
	_, _, err = s.CreateInvitation(ctx, state.NewInvitation{ID: "late", Secret: secret, Lifetime: time.Nanosecond})
	must(t, err)
	good := state.UseOfInvitation{ID: "one", Secret: secret, Key: sha256.Sum256([]byte("key")), Name: "host-2", Region: "fra"}
	for _, row := range []struct {
		name   string
		change func(*state.UseOfInvitation)
		kind   state.ErrorKind
		field  string
	}{
		{"unknown", func(u *state.UseOfInvitation) { u.ID = "two" }, state.NotFound, "token"},
		{"a key of something else", func(u *state.UseOfInvitation) { u.ID = "../authority" }, state.NotFound, "token"},
		{"wrong secret", func(u *state.UseOfInvitation) { u.Secret = []byte("0123456789abcdeg") }, state.Invalid, "token"},
		{"no secret", func(u *state.UseOfInvitation) { u.Secret = nil }, state.Invalid, "token"},
		{"the stored hash", func(u *state.UseOfInvitation) { u.Secret = []byte(made.Secret) }, state.Invalid, "token"},
		{"expired", func(u *state.UseOfInvitation) { u.ID = "late" }, state.Invalid, "token"},
		{"another region", func(u *state.UseOfInvitation) { u.Region = "ams" }, state.Invalid, "region"},
	} {
		u := good
		row.change(&u)
		if _, err := s.UseInvitation(ctx, u); state.KindOf(err) != row.kind {
			t.Errorf("%s: error %v, expected kind %v", row.name, err, row.kind)
		} else {
			refused(t, err, row.kind, row.field)
		}
	}
	used, err := s.UseInvitation(ctx, good)
	must(t, err)
	again, err := s.UseInvitation(ctx, good)
	must(t, err)
	if used != again || used.UsedName != "host-2" || used.UsedAt.IsZero() {
		t.Errorf("used %+v, then by the same key %+v", used, again)
	}
	other := good
	other.Key[0]++
	_, err = s.UseInvitation(ctx, other)
	refused(t, err, state.Conflict, "token")
}

func TestInvitationsThatCannotBe(t *testing.T) {
	t.Parallel()
	s := running(t)
	_, _, err := s.CreateInvitation(within(t), state.NewInvitation{ID: "one", Region: "nowhere", Lifetime: time.Hour})
	refused(t, err, state.Invalid, "region")
	for _, life := range []time.Duration{0, -time.Hour, state.MaxInvitationLife + 1} {
		_, _, err := s.CreateInvitation(within(t), state.NewInvitation{ID: "one", Lifetime: life})
		refused(t, err, state.Invalid, "expires")
	}
}

// One host gets in, however many come at the same moment with the same token.
func TestInvitationUsedAtTheSameMoment(t *testing.T) {
	t.Parallel()
	e := startClosing(t, directory(t))
	s := open(t, e)
	_, _, err := s.CreateInvitation(within(t), state.NewInvitation{ID: "one", Secret: []byte("s"), Lifetime: time.Hour})
	must(t, err)
	const hosts = 8
	results := make(chan error, hosts)
	for i := range hosts {
		from := open(t, e)
		go func() {
			_, err := from.UseInvitation(within(t), state.UseOfInvitation{ID: "one", Secret: []byte("s"), Key: [32]byte{byte(i + 1)}})
			results <- err
		}()
	}
	in := 0
	for range hosts {
		if err := <-results; err == nil {
			in++
		} else {
			refused(t, err, state.Conflict, "token")
		}
	}
	if in != 1 {
		t.Errorf("%d hosts got in, expected 1", in)
	}
}

func TestFirstAuthorityStays(t *testing.T) {
	t.Parallel()
	s := running(t)
	_, err := s.Authority(within(t))
	refused(t, err, state.NotFound, "")
	first, err := s.CreateAuthority(within(t), state.Authority{Certificate: "one", Key: "k"})
	must(t, err)
	second, err := s.CreateAuthority(within(t), state.Authority{Certificate: "two", Key: "k"})
	must(t, err)
	read, err := s.Authority(within(t))
	must(t, err)
	if first != second || first != read || read.Certificate != "one" {
		t.Errorf("created %+v, then %+v, read %+v", first, second, read)
	}
}
