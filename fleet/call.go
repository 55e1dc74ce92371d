package fleet

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn/state"
)

// CallConfig is how this host calls the services of others.
type CallConfig struct {
	// Find is the record of a host, by its name.
	Find func(name string) (state.Host, error)
	// Dial is the longest wait for a connection and its handshake. 0: 3 s.
	Dial time.Duration
	// Silence is how long a host that is asked something may say nothing before it is asked
	// whether it is there, and for how long it may keep that to itself. 0: 5 s.
	Silence time.Duration
}

const (
	defaultDial    = 3 * time.Second
	defaultSilence = 5 * time.Second
	// idleCall is how long a connection stays that nobody uses.
	idleCall = time.Minute
)

// UnreachableError is that there is no connection to a host: it was asked nothing.
type UnreachableError struct {
	Host string
	At   netip.AddrPort // invalid: where it is is not known
	Err  error
}

func (e *UnreachableError) Error() string {
	if !e.At.IsValid() {
		return fmt.Sprintf("host %s: %v", e.Host, e.Err)
	}
	return fmt.Sprintf("host %s at %v: %v", e.Host, e.At, e.Err)
}

// NotAsked is why.
func (e *UnreachableError) NotAsked() error { return e.Err }

func (e *UnreachableError) Unwrap() error { return e.Err }

// Transport carries requests to other hosts, as https://NAME/…. Who answers must show the
// certificate of the host that has that name now, wherever it is reached. There is no limit on
// how long an answer takes; the request's context is that.
func (f *Fleet) Transport(c CallConfig) *http.Transport {
	c.Dial, c.Silence = cmp.Or(c.Dial, defaultDial), cmp.Or(c.Silence, defaultSilence)
	return &http.Transport{
		DialTLSContext:    func(ctx context.Context, _, address string) (net.Conn, error) { return f.dial(ctx, c, address) },
		ForceAttemptHTTP2: true, IdleConnTimeout: idleCall,
		HTTP2: pings(c.Silence),
	}
}

// pings has a connection end when the other side has gone without a word.
func pings(silence time.Duration) *http.HTTP2Config {
	return &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: silence}
}

func (f *Fleet) dial(ctx context.Context, c CallConfig, address string) (net.Conn, error) {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	host, err := c.Find(name)
	if err != nil {
		return nil, &UnreachableError{Host: name, Err: err}
	}
	at, err := netip.ParseAddrPort(host.Endpoint)
	if err != nil {
		return nil, &UnreachableError{Host: name, Err: fmt.Errorf("its record does not say where it is: start its agent with --underlay: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Dial)
	defer cancel()
	config := f.ClientTLS()
	config.ServerName, config.NextProtos = name, []string{"h2", "http/1.1"}
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if state.CertificateKey(s.PeerCertificates[0]) != host.CertificateKey {
			return errors.New("it shows the certificate of another host, which had this name before, or pretends to")
		}
		return nil
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, &UnreachableError{Host: name, At: at, Err: err}
	}
	return conn, nil
}
