package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
	"time"

	"github.com/sixpn/sixpn/state"
)

const (
	tokenPrefix = "sixpn1."
	secretSize  = 24 // bytes: nobody finds it by trying
	idSize      = 6
	maxToken    = 4 << 10 // characters
	// MaxTokenAddresses is how many hosts a token names at most.
	MaxTokenAddresses = 8
)

// token is what a new host must know: whom to ask, how to tell that it is the right
// one, and by what right.
type token struct {
	Addresses []netip.AddrPort `json:"a"` // of the fleet's service, in the order of trying
	Authority []byte           `json:"f"` // SHA-256 of the authority's certificate
	ID        string           `json:"i"` // of the invitation
	Secret    []byte           `json:"s"`
}

// Its form is base64url of JSON and a checksum of four bytes, which tells a token that
// was damaged on its way from one that was forged.
func (t token) String() string {
	content, err := json.Marshal(t)
	if err != nil {
		panic(err) // there is nothing in it that cannot be encoded
	}
	content = binary.BigEndian.AppendUint32(content, crc32.ChecksumIEEE(content))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(content)
}

// parseToken never repeats the token, which is a secret and may end up in a log.
func parseToken(s string) (t token, err error) {
	s = strings.TrimSpace(s)
	encoded, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return token{}, tokenError("it does not begin with %q", tokenPrefix)
	}
	if len(s) > maxToken {
		return token{}, tokenError("it has %d characters, more than any token", len(s))
	}
	content, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(content) < 4 {
		return token{}, tokenError("it is damaged or cut off")
	}
	body, sum := content[:len(content)-4], binary.BigEndian.Uint32(content[len(content)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return token{}, tokenError("it is damaged or cut off")
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return token{}, tokenError("what is in it cannot be read (%v)", err)
	}
	if n := len(t.Addresses); n == 0 || n > MaxTokenAddresses || len(t.Authority) != sha256.Size || t.ID == "" || len(t.Secret) == 0 {
		return token{}, tokenError("something that a token says is missing")
	}
	return t, nil
}

// CheckToken says what is wrong with the form of a token; nobody is asked.
func CheckToken(s string) error {
	_, err := parseToken(s)
	return err
}

func tokenError(format string, args ...any) error {
	return fmt.Errorf("this is no token of an invitation: %s; expected all that one call of \"sixpn hosts invite\" printed", fmt.Sprintf(format, args...))
}

// Invitations is where invitations are kept; *state.Store is one.
type Invitations interface {
	Authorities
	CreateInvitation(ctx context.Context, n state.NewInvitation) (state.Invitation, int64, error)
}

// Invitation is one that was made.
type Invitation struct {
	ID        string
	Token     string // the secret is nowhere else
	Region    string
	ExpiresAt time.Time
}

// Invite makes a token by which one host may join, at one of these addresses. region is
// where it must be, empty for anywhere. It is made by a host that is a member itself.
func Invite(ctx context.Context, store Invitations, addresses []netip.AddrPort, region string, life time.Duration) (Invitation, int64, error) {
	if len(addresses) == 0 {
		return Invitation{}, 0, fmt.Errorf("no host of this fleet is reached by others: start this agent with --underlay ADDRESS")
	}
	kept, err := store.Authority(ctx)
	if err != nil {
		return Invitation{}, 0, err
	}
	ca, err := readAuthority(kept)
	if err != nil {
		return Invitation{}, 0, err
	}
	id, secret := make([]byte, idSize), make([]byte, secretSize)
	_, _ = rand.Read(id) // never fails, likewise below
	_, _ = rand.Read(secret)
	fingerprint := fingerprintOf(ca.certificate)
	t := token{
		Addresses: addresses[:min(len(addresses), MaxTokenAddresses)], Authority: fingerprint[:],
		ID: base64.RawURLEncoding.EncodeToString(id), Secret: secret,
	}
	made, revision, err := store.CreateInvitation(ctx, state.NewInvitation{ID: t.ID, Secret: secret, Region: region, Lifetime: life})
	if err != nil {
		return Invitation{}, 0, err
	}
	return Invitation{ID: t.ID, Token: t.String(), Region: region, ExpiresAt: made.ExpiresAt}, revision, nil
}
