package fleet

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/sixpn/sixpn/state"
)

const (
	// authorityLife is longer than any host's: it is the one thing that nobody renews.
	authorityLife = 20 * 365 * 24 * time.Hour
	// clockError is how far the clock of another host may be behind.
	clockError = 10 * time.Minute

	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8
)

// authority signs the certificates of hosts.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newAuthority makes one, as it is stored.
func newAuthority() (state.Authority, error) {
	key, err := newKey()
	if err != nil {
		return state.Authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "sixpn fleet"},
		NotBefore: time.Now().Add(-clockError), NotAfter: time.Now().Add(authorityLife),
		// It signs hosts and no further authorities.
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return state.Authority{}, err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return state.Authority{}, err
	}
	return state.Authority{Certificate: string(encodeCertificate(der)), Key: string(encoded)}, nil
}

func readAuthority(a state.Authority) (*authority, error) {
	pair, err := tls.X509KeyPair([]byte(a.Certificate), []byte(a.Key))
	if err != nil {
		return nil, fmt.Errorf("the fleet's certificate authority in the store cannot be read (%w): restore the store from a backup", err)
	}
	return &authority{pair.Leaf, pair.PrivateKey.(crypto.Signer)}, nil
}

// subject is what a certificate says of a host.
type subject struct {
	name     string // as subject, and as DNS name
	underlay netip.Addr
}

func (s subject) addresses() []net.IP {
	return []net.IP{s.underlay.AsSlice(), net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
}

// matches says whether a certificate says the same.
func (s subject) matches(c *x509.Certificate) bool {
	return c.Subject.CommonName == s.name && slices.EqualFunc(c.IPAddresses, s.addresses(), net.IP.Equal)
}

// issue signs a host's public key, for the part of hosts that serve and call.
func (a *authority) issue(s subject, key crypto.PublicKey, life time.Duration) (der []byte, err error) {
	now := time.Now()
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: s.name},
		NotBefore: now.Add(-clockError), NotAfter: now.Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{s.name}, IPAddresses: s.addresses(), BasicConstraintsValid: true,
	}, a.certificate, key, a.key)
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newSerial() *big.Int {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	serial[0] &= 0x7f        // a serial number is positive
	return new(big.Int).SetBytes(serial)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// decodeCertificate takes exactly one certificate.
func decodeCertificate(encoded []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(encoded)
	if block == nil || block.Type != pemCertificate || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("expected one certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// Fingerprint is the SHA-256 of a certificate.
func fingerprintOf(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.Raw) }

func poolOf(c *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return pool
}
