package state_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour),
	}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	must(t, err)
	a.certificate, err = x509.ParseCertificate(der)
	must(t, err)
	must(t, os.WriteFile(a.caFile(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return a
}

func (a *authority) caFile() string { return filepath.Join(a.dir, "ca.pem") }

// issue writes a certificate and its key as one file.
func (a *authority) issue(t *testing.T, name string) (path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return a.issueFor(t, name, key)
}

// issueFor is issue for a key that there is.
func (a *authority) issueFor(t *testing.T, name string, key *ecdsa.PrivateKey) (path string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	path = filepath.Join(a.dir, name+".pem")
	must(t, os.WriteFile(path, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), 0o600))
	return path
}

// client is what a host that has such a certificate connects with.
func (a *authority) client(t *testing.T, name string) *tls.Config {
	t.Helper()
	return a.clientWith(t, a.issue(t, name))
}

// clientWith is client for one that has its certificate in a file.
func (a *authority) clientWith(t *testing.T, path string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(path, path)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// admitted is client for one that the store knows as a host.
func (a *authority) admitted(t *testing.T, e *state.Embedded, name string) *tls.Config {
	t.Helper()
	config := a.client(t, name)
	record(t, e, name, config.Certificates[0].Leaf)
	return config
}

// record makes a host of whoever shows a certificate.
func record(t *testing.T, e *state.Embedded, name string, certificate *x509.Certificate) state.Host {
	t.Helper()
	key := state.CertificateKey(certificate)
	host, _, err := open(t, e).JoinHost(within(t), state.NewHost{Name: name, Region: "fra", Token: key, CertificateKey: key})
	must(t, err)
	return host
}

// shown is the certificate that a store shows.
func shown(t *testing.T, l *state.Listen) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(l.CertFile, l.KeyFile)
	must(t, err)
	return pair.Leaf
}

// listen is where a store may be heard, at three ports that nobody uses.
func (a *authority) listen(t *testing.T) *state.Listen {
	t.Helper()
	certificate := a.issue(t, "host")
	return &state.Listen{Underlay: freePorts(t), CertFile: certificate, KeyFile: certificate, CAFile: a.caFile()}
}

// freePorts finds a port that is free together with the two above it.
func freePorts(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp4", "127.0.0.1:0")
		must(t, err)
		at := first.Addr().(*net.TCPAddr).AddrPort()
		free := at.Port() < 65534
		for offset := uint16(1); free && offset <= 2; offset++ {
			next, err := net.Listen("tcp4", netip.AddrPortFrom(at.Addr(), at.Port()+offset).String())
			if free = err == nil; free {
				defer next.Close()
			}
		}
		first.Close()
		if free {
			return at
		}
	}
	t.Fatal("there are no three free ports side by side")
	return netip.AddrPort{}
}
