package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// Config is what a server needs. The settings at the end have defaults.
type Config struct {
	Store     Store
	Machines  Machines
	DataPlane DataPlane
	Resolver  Resolver
	Pinger    Pinger
	Keeper    Keeper
	Inviter   Inviter           // nil: this host is alone
	Keys      KeyRotator        // nil likewise
	Carrier   http.RoundTripper // to the agents of other hosts, as https://NAME/…; nil: this host is alone
	Host      sixpn.Host        // where new Machines go
	Region    string            // of Machines that name none
	// Distances is how far regions are from this host. nil: as the great circle has it.
	Distances func() *state.Distances
	Hosts     Hosts // nil: no more is known of hosts than their records
	Log       *slog.Logger

	MaxBody       int64         // of a request, bytes; default 1 MiB
	MaxOutput     int           // kept of each stream of an exec, bytes; default 1 MiB
	HostCalls     int           // answered to one other host at once, see ForHosts; default 256
	ReadBack      time.Duration // longest wait for this agent's own snapshot to have a write; default 5 s
	ApplyTimeout  time.Duration // longest wait=applied; default 30 s
	ShutdownGrace time.Duration // for requests under way when the server stops; default 5 s
}

// Server answers the API.
type Server struct {
	config  Config
	mux     *http.ServeMux
	handler http.Handler
	calls   calls
}

// NewServer returns a server; Serve starts it.
func NewServer(c Config) *Server {
	setDefault(&c.MaxBody, 1<<20)
	setDefault(&c.MaxOutput, 1<<20)
	setDefault(&c.HostCalls, 256)
	setDefault(&c.ReadBack, 5*time.Second)
	setDefault(&c.ApplyTimeout, 30*time.Second)
	setDefault(&c.ShutdownGrace, 5*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Distances == nil {
		unmeasured := state.NewDistances(c.Region, nil)
		c.Distances = func() *state.Distances { return unmeasured }
	}
	if c.Hosts == nil {
		c.Hosts = unseen{}
	}
	mux := http.NewServeMux()
	s := &Server{config: c, mux: mux, calls: calls{most: c.HostCalls, now: map[string]int{}}}
	strict := NewStrictHandlerWithOptions(&operations{s}, []StrictMiddlewareFunc{keepQuery, s.carry}, StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  s.failRequest,
		ResponseErrorHandlerFunc: s.fail,
	})
	HandlerWithOptions(strict, StdHTTPServerOptions{
		BaseRouter:       mux,
		Middlewares:      []MiddlewareFunc{s.checkBody},
		ErrorHandlerFunc: s.failRequest,
	})
	s.handler = s.logged(s.routed(mux))
	return s
}

func setDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// Handler serves the API on any transport.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve answers on l until ctx ends, then closes it. Requests under way see their
// context end and get a moment to answer.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.ShutdownGrace)
		defer cancel()
		err := server.Shutdown(grace)
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

func (s *Server) String() string { return "api" }

// logged tells the log about each request.
func (s *Server) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)
		s.config.Log.DebugContext(r.Context(), "api request", "method", r.Method, "path", r.URL.Path,
			"status", seen.status, "bytes", seen.bytes, "took", time.Since(begin))
	})
}

// statusWriter remembers how a request was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// routed answers unknown paths and methods in the API's own form.
func (s *Server) routed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &discarded{header: http.Header{}}
		handler.ServeHTTP(probe, r)
		if allow := probe.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			s.fail(w, r, refuse(http.StatusMethodNotAllowed, StatusInvalid, "", "%s is not possible on %s, expected one of: %s", r.Method, r.URL.Path, allow))
			return
		}
		s.fail(w, r, notFound("", "there is nothing at %s; the paths are in openapi.yaml", r.URL.Path))
	})
}

// discarded keeps the header of an answer that is not sent.
type discarded struct{ header http.Header }

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d *discarded) WriteHeader(int)             {}

// failRequest answers what the generated code could not read.
func (s *Server) failRequest(w http.ResponseWriter, r *http.Request, err error) {
	field := ""
	var format *InvalidParamFormatError
	var missing *RequiredParamError
	var many *TooManyValuesForParamError
	switch {
	case errors.As(err, &format):
		field, err = format.ParamName, malformed(format)
	case errors.As(err, &missing):
		field = missing.ParamName
	case errors.As(err, &many):
		field = many.ParamName
	}
	s.fail(w, r, refuse(http.StatusBadRequest, StatusInvalid, field, "%v", err))
}

// malformed is what is wrong with a parameter, for people.
func malformed(e *InvalidParamFormatError) error {
	var number *strconv.NumError
	switch {
	case !errors.As(e.Err, &number):
		return e
	case number.Func == "ParseBool":
		return fmt.Errorf("%s is %q, expected true or false", e.ParamName, number.Num)
	case errors.Is(number.Err, strconv.ErrRange):
		return fmt.Errorf("%s is %.40s, which is beyond all numbers: expected a smaller one", e.ParamName, number.Num)
	}
	return fmt.Errorf("%s is %q, expected a whole number, without a unit", e.ParamName, number.Num)
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	if e.Code == http.StatusInternalServerError {
		s.config.Log.ErrorContext(r.Context(), "api request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code)
	_ = json.NewEncoder(w).Encode(e.Failure) // nobody is left to tell
}
