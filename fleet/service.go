package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn/state"
)

// Members is what the service needs of the store; *state.Store is one.
type Members interface {
	Authorities
	UseInvitation(ctx context.Context, u state.UseOfInvitation) (state.Invitation, error)
	Snapshot() *state.Snapshot
	Next(ctx context.Context, than *state.Snapshot) (*state.Snapshot, error)
}

// ServiceConfig is what the service of one host is told.
type ServiceConfig struct {
	Store Members
	// Endpoints is where the store is, for a host that joins.
	Endpoints func(ctx context.Context) ([]string, error)
	// Handler answers what other hosts ask, all but joining; Caller says who does. nil:
	// nothing.
	Handler http.Handler
	// MaxBody of a request to join, bytes; 0: 16 KiB.
	MaxBody int64
	// Grace is for requests under way when the service ends. 0: one second.
	Grace time.Duration
	// Silence is as for calls.
	Silence time.Duration
}

const (
	defaultMaxBody = 16 << 10
	defaultGrace   = time.Second
	// joinTimeout is for the store, while a host waits to be let in.
	joinTimeout = 8 * time.Second
	// maxJoining is how many may join at the same moment.
	maxJoining = 16
	maxHeader  = 16 << 10
)

// Serve answers other hosts on l, by TLS, until ctx ends, then closes it. Only a host
// that is Ready may serve.
func (f *Fleet) Serve(ctx context.Context, l net.Listener, c ServiceConfig) error {
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Silence == 0 {
		c.Silence = defaultSilence
	}
	server := &http.Server{
		Handler:           f.handler(c),
		TLSConfig:         f.serverTLS(),
		ReadHeaderTimeout: callTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             pings(c.Silence),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug), // strangers cause them at will
	}
	connected := &callers{log: f.log, open: map[*tls.Conn]bool{}}
	server.ConnState = connected.note
	serving, done := context.WithCancel(ctx)
	defer done()
	go connected.expel(serving, c.Store) // ends with it
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Grace)
		defer cancel()
		err := server.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	})
	err := server.ServeTLS(l, "", "")
	if !stop() {
		return <-stopped
	}
	return err
}

type callerKey struct{}

// Caller is the name of the host that asks, which its certificate is of.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// handler lets in who has a certificate of the fleet, and anybody to joinPath.
func (f *Fleet) handler(c ServiceConfig) http.Handler {
	turns := make(chan struct{}, maxJoining)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+joinPath, func(w http.ResponseWriter, r *http.Request) {
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
			f.join(w, r, c)
		default:
			answer(w, http.StatusServiceUnavailable, failure{"too many hosts join at this moment: try again"})
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			answer(w, http.StatusUnauthorized, failure{"only hosts of this fleet may ask: a certificate of its authority is needed"})
			return
		}
		certificate := r.TLS.PeerCertificates[0]
		// A certificate outlives the host that was removed.
		host, ok := c.Store.Snapshot().HostOf(certificate)
		if !ok {
			answer(w, http.StatusForbidden, failure{fmt.Sprintf("host %q is not of this fleet any more, by this certificate: %s", certificate.Subject.CommonName, state.JoinAgain)})
			return
		}
		if c.Handler == nil {
			answer(w, http.StatusNotFound, failure{fmt.Sprintf("there is nothing at %s", r.URL.Path)})
			return
		}
		c.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, host.Name)))
	})
	return mux
}

// join lets one host in.
func (f *Fleet) join(w http.ResponseWriter, r *http.Request, c ServiceConfig) {
	controller := http.NewResponseController(w)
	_ = controller.SetReadDeadline(time.Now().Add(callTimeout)) // every connection can
	r.Body = http.MaxBytesReader(w, r.Body, c.MaxBody)
	ctx, cancel := context.WithTimeout(r.Context(), joinTimeout)
	defer cancel()
	result, err := f.admit(ctx, r, c)
	if err != nil {
		code := codeOf(err)
		f.log.Warn("a host was not let in", "from", r.RemoteAddr, "code", code, "error", err)
		answer(w, code, failure{err.Error()})
		return
	}
	answer(w, http.StatusOK, result)
}

func (f *Fleet) admit(ctx context.Context, r *http.Request, c ServiceConfig) (*joinAnswer, error) {
	var asked joinRequest
	decoder := json.NewDecoder(r.Body)
	if err := decoder.Decode(&asked); err != nil {
		return nil, badRequest("the request to join cannot be read: %v", err)
	}
	csr, who, err := readCSR(asked.CSR)
	if err != nil {
		return nil, err
	}
	if err := state.ValidateHostName(who.name); err != nil {
		return nil, err
	}
	if err := state.ValidateRegion(asked.Region); err != nil {
		return nil, err
	}
	if h, taken := c.Store.Snapshot().HostNamed(who.name); taken && h.ID != asked.Known {
		return nil, badRequest("the name %q is that of another host of this fleet: start this one with another --host-name, or remove the other with: sixpn hosts remove %s", who.name, who.name)
	}
	// All that can fail first: the invitation is for one use.
	kept, err := c.Store.Authority(ctx)
	if err != nil {
		return nil, err
	}
	ca, err := readAuthority(kept)
	if err != nil {
		return nil, err
	}
	endpoints, err := c.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	use := state.UseOfInvitation{ID: asked.ID, Secret: asked.Secret, Key: sha256.Sum256(csr.RawSubjectPublicKeyInfo), Name: who.name, Region: asked.Region}
	if _, err := c.Store.UseInvitation(ctx, use); err != nil {
		return nil, err
	}
	der, err := ca.issue(who, csr.PublicKey, f.config.Life)
	if err != nil {
		return nil, err
	}
	f.log.Info("a host was let in", "name", who.name, "address", who.underlay, "region", asked.Region, "invitation", asked.ID)
	return &joinAnswer{Certificate: string(encodeCertificate(der)), Authority: kept.Certificate, Endpoints: endpoints}, nil
}

// readCSR takes what a host says of itself, and proves that it has the key.
func readCSR(der []byte) (*x509.CertificateRequest, subject, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, subject{}, badRequest("the certificate request cannot be read: %v", err)
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, subject{}, badRequest("the key of the certificate request must be ECDSA P-256")
	}
	if len(csr.IPAddresses) != 1 {
		return nil, subject{}, badRequest("the certificate request must name one address, that of the host between hosts")
	}
	underlay, _ := netip.AddrFromSlice(csr.IPAddresses[0])
	if underlay = underlay.Unmap(); !underlay.IsValid() || underlay.IsUnspecified() || underlay.IsMulticast() {
		return nil, subject{}, badRequest("%v is no address that other hosts reach", underlay)
	}
	return csr, subject{csr.Subject.CommonName, underlay}, nil
}

func badRequest(format string, args ...any) error { return &refusedError{fmt.Sprintf(format, args...)} }

func codeOf(err error) int {
	var refused *refusedError
	if errors.As(err, &refused) {
		return http.StatusBadRequest
	}
	switch state.KindOf(err) {
	case state.Invalid, state.NotFound:
		return http.StatusForbidden
	case state.Conflict:
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // who asked has gone
}
