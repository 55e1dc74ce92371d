package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// carried is what the agents of a fleet ask each other on behalf of who asks them, by
// the route that the generated code registers. Nothing else is answered to other hosts:
// an operation of this list answers with elsewhere where another host's agent must do it.
var carried = map[string]bool{
	"POST /v1/apps/{app_name}/machines/{machine_id}/exec":   true,
	"POST /v1/apps/{app_name}/machines/{machine_id}/signal": true,
	"GET /v1/apps/{app_name}/machines/{machine_id}/logs":    true,
	"GET /v1/apps/{app_name}/machines/{machine_id}/live":    true,
	"POST /v1/hosts/{host_name}/rotate-key":                 true,
	"GET /v1/orgs/{org_slug}/dig":                           true,
	"POST /v1/orgs/{org_slug}/ping":                         true,
}

// elsewhere is instead of an answer: only the agent of this host has it.
type elsewhere struct{ host sixpn.Host }

func (e *elsewhere) Error() string {
	return "only the agent of host " + e.host.String() + " can answer"
}

// What one agent tells another beside the request.
const (
	// knownHeader is the revision of what the asking agent knew.
	knownHeader = "Sixpn-Known-Revision"
	// revisionHeader is that of what the other agent wrote.
	revisionHeader = "Sixpn-Revision"
	// readTimeout is for the body of a request, which the asking agent has whole.
	readTimeout = 10 * time.Second
)

var carriedHeaders = []string{"Accept", "Content-Type", leaseHeader}

// asking is another host's agent, and the revision of what it knew.
type asking struct {
	host  string
	known int64
}

type askingKey struct{}

// askedBy is who carried this request here, the zero value for a client of this agent.
func askedBy(ctx context.Context) asking {
	by, _ := ctx.Value(askingKey{}).(asking)
	return by
}

// carry has another host's agent answer what only that can.
func (s *Server) carry(next StrictHandlerFunc, _ string) StrictHandlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		response, err := next(ctx, w, r, request)
		var away *elsewhere
		switch by := askedBy(ctx).host; {
		case !errors.As(err, &away):
			return response, err
		case by != "":
			// Never a second time: hosts that disagree would send it in circles.
			return nil, refuse(http.StatusServiceUnavailable, StatusUnavailable, "",
				"host %s takes it for one of host %s, where it is not: to that one it is on host %s, or on its way; try again", by, s.hostName(s.config.Host), s.hostName(away.host))
		case !carried[r.Pattern]:
			return nil, fmt.Errorf("%s is not among what one host may ask another", r.Pattern)
		}
		return nil, s.forward(w, r, away.host)
	}
}

// catchUp waits until this agent knows what the asking one knew, and says whether it did
// not: what was refused by what it knew is to be looked at again.
func (s *Server) catchUp(ctx context.Context) bool {
	known := askedBy(ctx).known
	if s.config.Store.Snapshot().Revision >= known {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.ReadBack)
	defer cancel()
	_, err := s.config.Store.Wait(ctx, known-1)
	return err == nil
}

func (s *Server) hostName(h sixpn.Host) string { return hostName(s.config.Store.Snapshot(), h) }

// forward asks another host's agent, and answers what that does.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, to sixpn.Host) error {
	snapshot := s.config.Store.Snapshot()
	host, err := s.reachable(snapshot, to)
	if err != nil {
		return err
	}
	if r.GetBody != nil { // as checkBody read it
		if r.Body, err = r.GetBody(); err != nil {
			return err
		}
	}
	var failed error
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "https", host.Name, host.Name
			p.Out.Header = http.Header{knownHeader: {strconv.FormatInt(snapshot.Revision, 10)}}
			for _, name := range carriedHeaders {
				if values := p.In.Header.Values(name); len(values) > 0 {
					p.Out.Header[http.CanonicalHeaderKey(name)] = values
				}
			}
		},
		ModifyResponse: func(answer *http.Response) error {
			if revision, err := strconv.ParseInt(answer.Header.Get(revisionHeader), 10, 64); err == nil {
				return s.written(r.Context(), revision, "") // a client reads what it wrote, here too
			}
			return nil
		},
		Transport:     s.config.Carrier,
		FlushInterval: -1,
		ErrorHandler:  func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
		ErrorLog:      slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
	return s.notCarried(r.Context(), host, failed)
}

// reachable is the host to ask, unless it is known that it will not answer.
func (s *Server) reachable(snapshot *state.Snapshot, id sixpn.Host) (state.Host, error) {
	unavailable := func(format string, args ...any) (state.Host, error) {
		return state.Host{}, refuse(http.StatusServiceUnavailable, StatusUnavailable, "", format, args...)
	}
	host, ok := snapshot.Hosts[id]
	switch {
	case !ok:
		return unavailable("host %v, whose agent alone can answer, was removed from the fleet", id)
	case s.config.Carrier == nil || host.Endpoint == "":
		return unavailable("host %s, whose agent alone can answer, cannot be reached from host %s: both must be started with --underlay ADDRESS", host.Name, s.hostName(s.config.Host))
	case !snapshot.Present(id):
		return unavailable("host %s, whose agent alone can answer, is lost %s: look after it, its agent and the way to %s; if it is gone for good: sixpn hosts remove %s --force",
			host.Name, sinceText(snapshot.AbsentSince(id)), host.Endpoint, host.Name)
	}
	return host, nil
}

func sinceText(t time.Time) string {
	if t.IsZero() {
		return "since before this agent knew of it"
	}
	return "since " + t.UTC().Format(time.RFC3339)
}

// notAsked is an error of a Carrier by which the other agent has heard nothing.
type notAsked interface {
	error
	NotAsked() (why error)
}

// notCarried is what to say when another agent did not answer.
func (s *Server) notCarried(ctx context.Context, host state.Host, err error) error {
	var unasked notAsked
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &unasked):
		return refuse(http.StatusServiceUnavailable, StatusUnavailable, "",
			"host %s at %s, whose agent alone can answer, does not (%v): nothing was done; its lease is not over yet, so the agent may be starting again: try again, or look after it and the way to it", host.Name, host.Endpoint, unasked.NotAsked())
	}
	return refuse(http.StatusServiceUnavailable, StatusUnavailable, "",
		"the agent of host %s at %s went away before it answered (%v): whether it did what it was asked is not known; look after it, then at the Machine", host.Name, host.Endpoint, err)
}

// ForHosts answers the agents of other hosts what they carry here. caller is the host
// that asks, which has proved it; that its client may ask is believed, for it has looked
// at that.
func (s *Server) ForHosts(caller func(context.Context) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		by := asking{host: caller(r.Context())}
		by.known, _ = strconv.ParseInt(r.Header.Get(knownHeader), 10, 64) // 0 is nothing, as is what is no number
		_, pattern := s.mux.Handler(r)
		log := s.config.Log.With("host", by.host, "method", r.Method, "path", r.URL.Path)
		if by.host == "" || !carried[pattern] {
			log.WarnContext(r.Context(), "another host asked for what is not for hosts")
			s.fail(w, r, refuse(http.StatusForbidden, StatusForbidden, "", "%s %s is not for other hosts: ask this host's own agent", r.Method, r.URL.Path))
			return
		}
		if !s.calls.enter(by.host) {
			s.fail(w, r, refuse(http.StatusServiceUnavailable, StatusUnavailable, "",
				"host %s is at work on %d requests of host %s, and takes no more of it at once: end some of what runs there or is followed from there, or try again", s.hostName(s.config.Host), s.config.HostCalls, by.host))
			return
		}
		defer s.calls.leave(by.host)
		log.InfoContext(r.Context(), "asked by another host")
		if err := s.readBody(w, r); err != nil {
			s.fail(w, r, err)
			return
		}
		s.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), askingKey{}, by)))
	})
}

// calls is how many requests of each other host are under way: a host that is overrun, or
// was broken into, does not use up this one.
type calls struct {
	most int
	mu   sync.Mutex
	now  map[string]int
}

func (c *calls) enter(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now[host] >= c.most {
		return false
	}
	c.now[host]++
	return true
}

func (c *calls) leave(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now[host]--; c.now[host] == 0 {
		delete(c.now, host)
	}
}

// readBody reads what the asking agent has to send, in a limited time.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTimeout))           // every connection can
	raw, err := io.ReadAll(io.LimitReader(r.Body, s.config.MaxBody+1)) // checkBody refuses one that is longer
	if err != nil {
		return refuse(http.StatusBadRequest, StatusInvalid, "", "the request body cannot be read: %v", err)
	}
	_ = control.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(raw))
	return nil
}
