package fleet

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/sixpn/sixpn"
)

const (
	joinPath = "/v1/join"
	// callTimeout is how long one host may take to answer.
	callTimeout = 10 * time.Second
	maxAnswer   = 64 << 10 // bytes of an answer
)

// Newcomer is what a host that joins says of itself, beside its name and address.
type Newcomer struct {
	Region string
	Known  sixpn.Host // the number it has in the fleet already, 0 for a new host
}

// joinRequest is what is posted to joinPath.
type joinRequest struct {
	ID     string     `json:"id"`
	Secret []byte     `json:"secret"`
	CSR    []byte     `json:"csr"` // DER; subject and address are in it
	Region string     `json:"region"`
	Known  sixpn.Host `json:"known,omitempty"`
}

// joinAnswer is what comes back.
type joinAnswer struct {
	Certificate string   `json:"certificate"` // PEM, likewise below
	Authority   string   `json:"authority"`
	Endpoints   []string `json:"endpoints"` // of the store
}

// failure is every other answer of the service.
type failure struct {
	Error string `json:"error"`
}

// refusedError is an answer that asking another host would not change.
type refusedError struct{ message string }

func (e *refusedError) Error() string { return e.message }

// Join makes this host a member by a token: it asks the hosts that the token names for a
// certificate, and remembers it and where the store is. The private key is made here and
// stays here; it is kept before anybody is asked, so that a join whose answer was lost
// may be repeated with the same token.
func (f *Fleet) Join(ctx context.Context, encoded string, n Newcomer) error {
	t, err := parseToken(encoded)
	if err != nil {
		return err
	}
	key, err := f.joinKey()
	if err != nil {
		return fmt.Errorf("keep the key to join with: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: f.config.Name}, IPAddresses: []net.IP{f.config.Underlay.Addr().AsSlice()},
	}, key)
	if err != nil {
		return err
	}
	body, err := json.Marshal(joinRequest{ID: t.ID, Secret: t.Secret, CSR: csr, Region: n.Region, Known: n.Known})
	if err != nil {
		return err
	}
	var tried []error
	for _, at := range t.Addresses {
		answer, err := ask(ctx, at, t.Authority, body)
		if err == nil {
			return f.take(answer, t, key)
		}
		var final *refusedError
		if errors.As(err, &final) {
			return fmt.Errorf("join the fleet at %v: %w", at, err)
		}
		tried = append(tried, fmt.Errorf("%v: %w", at, err))
	}
	return fmt.Errorf("join the fleet: no host that the token names let this one in; check that one of them runs and that TCP and UDP port %d of it are reached from here, then start again with the same token: %w",
		t.Addresses[0].Port(), errors.Join(tried...))
}

// joinKey is the key that this host joins with: that of its certificate if it has one,
// else the same one until it has joined.
func (f *Fleet) joinKey() (*ecdsa.PrivateKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pair != nil {
		return f.key()
	}
	content, err := os.ReadFile(f.path(joinFile))
	if err == nil {
		if block, _ := pem.Decode(content); block != nil {
			if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				return key.(*ecdsa.PrivateKey), nil
			}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(f.path(joinFile), encoded)
}

// take keeps what a host of the fleet answered. Where the store is comes last: with it
// the host has joined.
func (f *Fleet) take(a joinAnswer, t token, key *ecdsa.PrivateKey) error {
	ca, err := decodeCertificate([]byte(a.Authority))
	if err != nil {
		return fmt.Errorf("the fleet's answer has no authority: %w", err)
	}
	if fingerprint := fingerprintOf(ca); subtle.ConstantTimeCompare(fingerprint[:], t.Authority) != 1 {
		return errors.New("the fleet's answer has another authority than the token: ask for a new one with: sixpn hosts invite")
	}
	own, err := decodeCertificate([]byte(a.Certificate))
	if err != nil {
		return fmt.Errorf("the fleet's answer has no certificate: %w", err)
	}
	if err := own.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("the certificate in the fleet's answer: %w", err)
	}
	if len(a.Endpoints) == 0 {
		return errors.New("the fleet's answer does not say where the store is: give it with --store")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.keep(own.Raw, ca, key); err != nil {
		return fmt.Errorf("keep the certificate of this host: %w", err)
	}
	m := member{Endpoints: a.Endpoints}
	if err := f.writeMember(m); err != nil {
		return fmt.Errorf("remember where the store is: %w", err)
	}
	f.member = &m
	os.Remove(f.path(joinFile))
	f.log.Info("joined the fleet", "name", f.config.Name, "store", strings.Join(a.Endpoints, ","), "certificate_until", own.NotAfter)
	return nil
}

// ask posts to one host, which must show the authority of this fingerprint before it is
// told anything.
func ask(ctx context.Context, at netip.AddrPort, authority, body []byte) (joinAnswer, error) {
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			// The authority is not known yet, only its fingerprint; verifyPinned does the rest.
			InsecureSkipVerify: true,
			VerifyConnection:   func(c tls.ConnectionState) error { return verifyPinned(c, authority) },
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+at.String()+joinPath, bytes.NewReader(body))
	if err != nil {
		return joinAnswer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return joinAnswer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return joinAnswer{}, err
	}
	if response.StatusCode == http.StatusOK {
		var answer joinAnswer
		if err := json.Unmarshal(content, &answer); err != nil {
			return joinAnswer{}, fmt.Errorf("its answer cannot be read: %w", err)
		}
		return answer, nil
	}
	why := failure{Error: fmt.Sprintf("it answered %s", response.Status)}
	_ = json.Unmarshal(content, &why) // if there is more to say
	if response.StatusCode >= 500 {
		return joinAnswer{}, errors.New(why.Error)
	}
	return joinAnswer{}, &refusedError{why.Error}
}

// verifyPinned accepts a host whose certificate is signed by the authority of this
// fingerprint. Its address is not compared: every host of the fleet may let another in,
// and the way to it may lead over an address it does not know.
func verifyPinned(c tls.ConnectionState, authority []byte) error {
	for _, shown := range c.PeerCertificates[1:] {
		fingerprint := fingerprintOf(shown)
		if subtle.ConstantTimeCompare(fingerprint[:], authority) != 1 {
			continue
		}
		_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: poolOf(shown), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			return fmt.Errorf("its certificate is not good (%w): check that the clocks of both hosts are right", err)
		}
		return nil
	}
	return errors.New("it shows another certificate authority than the token names: the token is of another fleet or forged, or somebody is in between; ask for a new one with: sixpn hosts invite")
}
