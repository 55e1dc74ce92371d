package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sixpn/sixpn/state"
)

// Config is what a host is told of itself.
type Config struct {
	// Dir keeps this host's certificate and where the fleet is; made if need be, mode 0700.
	Dir string
	// Name is that of the host, the subject of its certificate.
	Name string
	// Underlay is where other hosts reach this one: its address between hosts, and the
	// port of the fleet's service, TCP.
	Underlay netip.AddrPort
	// Life is that of a certificate, which is renewed when a third of it is left. 0: 30 days.
	Life time.Duration
	Log  *slog.Logger
}

const defaultLife = 30 * 24 * time.Hour

// Authorities is where the fleet's authority is kept; *state.Store is one.
type Authorities interface {
	Authority(ctx context.Context) (state.Authority, error)
	CreateAuthority(ctx context.Context, a state.Authority) (state.Authority, error)
}

// Fleet is this host as a member: who it is, and who the others are. Its methods may be
// called from any goroutine.
type Fleet struct {
	config Config
	log    *slog.Logger

	mu        sync.Mutex
	pair      *tls.Certificate  // of this host, nil: none yet
	authority *x509.Certificate // likewise
	member    *member           // nil: the store is this host's, or an operator's
}

// Open reads what this host remembers; that may be nothing.
func Open(c Config) (*Fleet, error) {
	if c.Life == 0 {
		c.Life = defaultLife
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the fleet: %w", err)
	}
	f := &Fleet{config: c, log: c.Log}
	var err error
	if f.member, err = f.readMember(); err != nil {
		return nil, err
	}
	if err := f.readCertificate(); err != nil {
		// A store of this host's, or an operator's, gives it another one.
		if f.member != nil {
			return nil, fmt.Errorf("the certificate of this host cannot be read (%w): remove the directory %s and join again with a new token", err, c.Dir)
		}
		f.log.Warn("the certificate of this host cannot be read: it gets a new one", "error", err)
	}
	return f, nil
}

// readCertificate finds none, or one that is whole.
func (f *Fleet) readCertificate() error {
	encoded, err := os.ReadFile(f.path(caFile))
	if errors.Is(err, os.ErrNotExist) && f.member == nil {
		return nil
	}
	if err != nil {
		return err
	}
	ca, err := decodeCertificate(encoded)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path(caFile), err)
	}
	pair, err := tls.LoadX509KeyPair(f.path(hostFile), f.path(hostFile))
	if err != nil {
		return err
	}
	if err := pair.Leaf.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("%s is not of the authority in %s: %w", f.path(hostFile), f.path(caFile), err)
	}
	f.pair, f.authority = &pair, ca
	return nil
}

// Joined says whether this host is a client of a store on other hosts, which it joined.
func (f *Fleet) Joined() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.member != nil
}

// Ready says whether this host has a certificate, so that TLS works.
func (f *Fleet) Ready() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pair != nil
}

// Validity is from when and until when this host's certificate is good; zero without one.
func (f *Fleet) Validity() (from, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pair == nil {
		return from, until
	}
	return f.pair.Leaf.NotBefore, f.pair.Leaf.NotAfter
}

// Expired says since when this host's certificate is too old for the others, zero if it
// is not. One that has joined cannot renew it by itself then.
func (f *Fleet) Expired() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pair == nil || time.Now().Before(f.pair.Leaf.NotAfter) {
		return time.Time{}
	}
	return f.pair.Leaf.NotAfter
}

// Endpoints is where the store of the fleet is, for a host that joined.
func (f *Fleet) Endpoints() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.member == nil {
		return nil
	}
	return slices.Clone(f.member.Endpoints)
}

// SetEndpoints remembers where the store is now, for the next start. From then on this
// host counts as joined: the store is on others too.
func (f *Fleet) SetEndpoints(endpoints []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(endpoints) == 0 || f.member != nil && slices.Equal(f.member.Endpoints, endpoints) {
		return nil
	}
	m := member{Endpoints: slices.Clone(endpoints)}
	if err := f.writeMember(m); err != nil {
		return fmt.Errorf("remember where the store is: %w", err)
	}
	f.member = &m
	return nil
}

// Listen is how an embedded store is heard by other hosts; known is its field Known.
func (f *Fleet) Listen(known func() *state.Store) *state.Listen {
	return &state.Listen{Underlay: f.config.Underlay, CertFile: f.path(hostFile), KeyFile: f.path(hostFile), CAFile: f.path(caFile), Known: known}
}

// Found gives the fleet its authority, if it has none, and this host a certificate of
// it, if it has none that is good. changed says that another authority counts than
// before: what was started with that of before must start again.
func (f *Fleet) Found(ctx context.Context, store Authorities) (changed bool, err error) {
	kept, err := store.Authority(ctx)
	if state.KindOf(err) == state.NotFound {
		var made state.Authority
		if made, err = newAuthority(); err == nil {
			kept, err = store.CreateAuthority(ctx, made)
		}
	}
	if err != nil {
		return false, fmt.Errorf("the fleet's certificate authority: %w", err)
	}
	ca, err := readAuthority(kept)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	changed = f.authority == nil || !f.authority.Equal(ca.certificate)
	if !changed && !f.due() {
		return false, nil
	}
	return changed, f.renew(ca)
}

func (f *Fleet) subject() subject { return subject{f.config.Name, f.config.Underlay.Addr()} }

// due says whether it is time for another certificate: it says something else of this
// host, or a third of its life is left, or more than it may have.
func (f *Fleet) due() bool {
	if f.pair == nil || !f.subject().matches(f.pair.Leaf) {
		return true
	}
	left := time.Until(f.pair.Leaf.NotAfter)
	return left < f.config.Life/3 || left > f.config.Life
}

// renew makes a certificate. Its key stays as long as there is one, as the others know this
// host by it. Whoever is connected stays connected.
func (f *Fleet) renew(ca *authority) error {
	key, err := f.key()
	if err != nil {
		return err
	}
	der, err := ca.issue(f.subject(), key.Public(), f.config.Life)
	if err != nil {
		return fmt.Errorf("sign the certificate of this host: %w", err)
	}
	if err := f.keep(der, ca.certificate, key); err != nil {
		return fmt.Errorf("keep the certificate of this host: %w", err)
	}
	f.log.Info("this host has a new certificate", "name", f.config.Name, "address", f.config.Underlay.Addr(), "until", f.pair.Leaf.NotAfter)
	return nil
}

func (f *Fleet) key() (*ecdsa.PrivateKey, error) {
	if f.pair != nil {
		if key, ok := f.pair.PrivateKey.(*ecdsa.PrivateKey); ok {
			return key, nil
		}
	}
	return newKey()
}

// CertificateKey is what the others know this host by: see state.CertificateKey. "" while
// it has no certificate.
func (f *Fleet) CertificateKey() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pair == nil {
		return ""
	}
	return state.CertificateKey(f.pair.Leaf)
}

// keep writes a certificate and has it used from now on.
func (f *Fleet) keep(der []byte, ca *x509.Certificate, key *ecdsa.PrivateKey) error {
	encodedKey, err := encodeKey(key)
	if err != nil {
		return err
	}
	encodedCA := encodeCertificate(ca.Raw)
	// The authority goes along, so that a host that joins can compare its fingerprint.
	certificates := append(encodeCertificate(der), encodedCA...)
	pair, err := tls.X509KeyPair(certificates, encodedKey)
	if err != nil {
		return err
	}
	if err := writeFile(f.path(caFile), encodedCA); err != nil {
		return err
	}
	if err := writeFile(f.path(hostFile), append(certificates, encodedKey...)); err != nil {
		return err
	}
	f.pair, f.authority = &pair, ca
	return nil
}

// KeepCertificate renews this host's certificate in time until ctx ends, whose error it
// returns. The store gives the authority's key; while it is away the old certificate
// stays, and has a third of its life for that.
func (f *Fleet) KeepCertificate(ctx context.Context, store Authorities) error {
	// Looked at by the clock on the wall: a host may sleep, or its clock be set.
	ticker := time.NewTicker(min(f.config.Life/30, time.Minute))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		f.mu.Lock()
		due := f.due()
		f.mu.Unlock()
		if !due {
			continue
		}
		changed, err := f.Found(ctx, store)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			f.log.Warn("the certificate of this host cannot be renewed yet", "error", err)
		case changed:
			return errors.New("the fleet has another certificate authority: the agent must start again")
		}
	}
}
