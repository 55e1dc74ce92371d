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
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn/internal/strangers"
	"github.com/sixpn/sixpn/state"
)

// Members is what the service needs of the store; *state.Store is one.
type Members interface {
	Authorities
	CheckInvitation(ctx context.Context, id string, secret []byte) error
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
	// Strangers bounds the connections of those who are no hosts of the fleet.
	Strangers strangers.Limits
}

const (
	defaultMaxBody = 16 << 10
	defaultGrace   = time.Second
	// joinTimeout is for the store, while a host waits to be let in.
	joinTimeout = 8 * time.Second
	// maxJoining is how many are looked at at the same moment who want to join.
	maxJoining = 16
	maxHeader  = 16 << 10
	maxID      = 64 // characters of an invitation's
	// idleHost is how long a connection of a host stays that nobody uses.
	idleHost = 2 * time.Minute
	// maxStreams is how much a stranger may ask at once on one connection.
	maxStreams = 2
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
	d := newDoor(ctx, l, f.serverTLS(), c, f.log)
	connected := &callers{log: f.log, open: map[*tls.Conn]bool{}}
	serving, done := context.WithCancel(ctx)
	defer done()
	go connected.expel(serving, c.Store) // ends with it
	join := f.joining(c)
	hosts, visitors := f.server(ctx, d, forHosts(c, join)), f.server(ctx, d, forStrangers(join))
	hosts.ConnState, hosts.IdleTimeout, hosts.HTTP2 = connected.note, idleHost, pings(c.Silence)
	visitors.ConnContext, visitors.HTTP2 = withVisit, &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
	visitors.SetKeepAlivesEnabled(false)
	var group errgroup.Group
	group.Go(d.open)
	group.Go(func() error { return serve(ctx, hosts, d.hosts, c.Grace) })
	group.Go(func() error { return serve(ctx, visitors, d.visitors, c.Grace) })
	return group.Wait()
}

func (f *Fleet) server(ctx context.Context, d *door, h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, TLSConfig: d.config.Clone(), ReadHeaderTimeout: callTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(f.log.Handler(), slog.LevelDebug), // strangers cause them at will
	}
}

// serve lasts until ctx ends, and for the grace at most.
func serve(ctx context.Context, server *http.Server, l net.Listener, grace time.Duration) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err := server.Shutdown(limited)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(l)
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

// forHosts answers who has shown the certificate of a host of the fleet.
func forHosts(c ServiceConfig, join http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+joinPath, join)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		// It was one when it connected.
		host, ok := c.Store.Snapshot().HostOf(r.TLS.PeerCertificates[0])
		switch {
		case !ok:
			refuse(w, r)
		case c.Handler == nil:
			answer(w, http.StatusNotFound, failure{fmt.Sprintf("there is nothing at %s", r.URL.Path)})
		default:
			c.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, host.Name)))
		}
	})
	return mux
}

// forStrangers lets anybody join, and nothing else.
func forStrangers(join http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+joinPath, join)
	mux.HandleFunc("/", refuse)
	return mux
}

func refuse(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.VerifiedChains) == 0 {
		answer(w, http.StatusUnauthorized, failure{"only hosts of this fleet may ask: a certificate of its authority is needed"})
		return
	}
	answer(w, http.StatusForbidden, failure{fmt.Sprintf("host %q is not of this fleet any more, by this certificate: %s", r.TLS.PeerCertificates[0].Subject.CommonName, state.JoinAgain)})
}

// refusalInterval is how often it is said that a host was not let in: strangers cause it at
// will.
const refusalInterval = time.Second

// joining lets hosts in, a few at a time; the others wait for their turn.
func (f *Fleet) joining(c ServiceConfig) http.HandlerFunc {
	turns := make(chan struct{}, maxJoining)
	var said atomic.Int64 // when, in Unix nanoseconds
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(callTimeout)) // every connection can
		// Whoever is slow to say what it wants keeps nobody waiting.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, c.MaxBody))
		if err != nil {
			err = badRequest("the request to join cannot be read: %v", err)
		}
		ctx, cancel := context.WithTimeout(r.Context(), joinTimeout)
		defer cancel()
		var result *joinAnswer
		if err == nil {
			select {
			case turns <- struct{}{}:
				result, err = f.admit(ctx, body, c)
				<-turns
			case <-ctx.Done():
				err = errors.New("too many hosts join at this moment: try again")
			}
		}
		if err != nil {
			code := codeOf(err)
			level, now, last := slog.LevelDebug, time.Now().UnixNano(), said.Load()
			if now-last >= int64(refusalInterval) && said.CompareAndSwap(last, now) {
				level = slog.LevelWarn
			}
			f.log.Log(ctx, level, "a host was not let in", "from", r.RemoteAddr, "code", code, "error", err)
			answer(w, code, failure{err.Error()})
			return
		}
		answer(w, http.StatusOK, result)
	}
}

func (f *Fleet) admit(ctx context.Context, body []byte, c ServiceConfig) (*joinAnswer, error) {
	var asked joinRequest
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, badRequest("the request to join cannot be read: %v", err)
	}
	if len(asked.ID) > maxID {
		return nil, badRequest("the id of the invitation has %d characters, more than any", len(asked.ID))
	}
	csr, who, err := readCSR(asked.CSR)
	if err != nil {
		return nil, err
	}
	// Who only guesses learns nothing of the fleet.
	if err := c.Store.CheckInvitation(ctx, asked.ID, asked.Secret); err != nil {
		return nil, err
	}
	keepVisit(ctx)
	if err := state.ValidateHostName(who.name); err != nil {
		return nil, err
	}
	if err := state.ValidateRegion(asked.Region); err != nil {
		return nil, err
	}
	if h, taken := c.Store.Snapshot().HostNamed(who.name); taken && h.ID != asked.Known {
		return nil, badRequest("the name %q is that of another host of this fleet: start this one with another --host-name, or remove the other with: sixpn hosts remove %s", who.name, who.name)
	}
	// All that can fail comes before the use of the invitation, which is for one.
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
