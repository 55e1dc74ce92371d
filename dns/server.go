package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// Config is what a Server is made of. Durations and counts of 0 take the
// default that is named with them.
type Config struct {
	// Snapshot is the state to answer from, asked anew for each query.
	Snapshot func() *state.Snapshot
	// Distances is how far regions are from this resolver, asked anew for each query;
	// the same pointer as long as nothing has changed. nil: all are as far.
	Distances func() *state.Distances
	Forward   Forward  // how all other names are resolved
	Observer  Observer // nil: nobody counts
	Log       *slog.Logger

	ReadTimeout        time.Duration // for the first query of a connection, each message's rest, and each reply to be taken, 2 s
	IdleTimeout        time.Duration // between the queries of a connection, 10 s
	QueriesConnection  int           // queries of one connection, 1024
	Connections        int           // of all clients, 1024
	ConnectionsNetwork int           // of one network, a quarter of them
	ConnectionsMachine int           // of one Machine, 16
}

// Server answers on two sockets, and whoever asks by Resolve.
type Server struct {
	config  Config
	view    atomic.Pointer[View]
	forward *forwarder
}

// NewServer fills in the defaults.
func NewServer(config Config) *Server {
	setDefault(&config.ReadTimeout, 2*time.Second)
	setDefault(&config.IdleTimeout, 10*time.Second)
	setDefault(&config.QueriesConnection, 1024)
	setDefault(&config.Connections, 1024)
	setDefault(&config.ConnectionsNetwork, max(config.Connections/4, 1))
	setDefault(&config.ConnectionsMachine, 16)
	if config.Distances == nil {
		unknown := state.NewDistances("", nil)
		config.Distances = func() *state.Distances { return unknown }
	}
	return &Server{config: config, forward: newForwarder(config.Forward, config.Observer, config.Log)}
}

func setDefault[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// Run answers until ctx is done, then closes both sockets and returns nil. Any
// other end is an error of a socket. The sockets are normally on [::]:53 of the
// private namespace with IPV6_FREEBIND: every address that reaches them is the
// resolver's, and the reply comes from the one that was asked. packet is a
// *net.UDPConn, since others cannot tell which address that was.
func (s *Server) Run(ctx context.Context, packet net.PacketConn, listener net.Listener) error {
	defer s.forward.close()
	if _, ok := packet.(*net.UDPConn); !ok {
		return fmt.Errorf("serve DNS over udp: the socket is a %T, expected a *net.UDPConn", packet)
	}
	group, ctx := errgroup.WithContext(ctx)
	connections := newLimited(listener, s.config)
	s.serve(ctx, group, "udp", &miekg.Server{
		PacketConn: packet, UDPSize: MaxUDP,
		Handler: miekg.HandlerFunc(func(w miekg.ResponseWriter, query *miekg.Msg) { s.handle(ctx, w, query, nil) }),
	})
	s.serve(ctx, group, "tcp", &miekg.Server{
		Listener:      connections,
		MaxTCPQueries: s.config.QueriesConnection,
		IdleTimeout:   func() time.Duration { return s.config.IdleTimeout },
		Handler:       miekg.HandlerFunc(func(w miekg.ResponseWriter, query *miekg.Msg) { s.handle(ctx, w, query, connections) }),
	})
	return group.Wait()
}

// serve runs one of the two servers and shuts it down when ctx is done.
func (s *Server) serve(ctx context.Context, group *errgroup.Group, network string, server *miekg.Server) {
	started := make(chan struct{})
	ended := make(chan struct{})
	server.Net = network
	server.MsgAcceptFunc = accept
	server.ReadTimeout = s.config.ReadTimeout
	server.NotifyStartedFunc = func() { close(started) }

	group.Go(func() error {
		defer close(ended)
		if err := server.ActivateAndServe(); err != nil {
			return fmt.Errorf("serve DNS over %s: %w", network, err)
		}
		return nil
	})
	group.Go(func() error {
		select {
		case <-ended: // with an error that the other goroutine returns
			return nil
		case <-started:
		}
		select {
		case <-ended:
		case <-ctx.Done():
			// What is being answered takes microseconds, what is being forwarded ends with
			// ctx; a stuck client waits for nothing.
			_ = server.Shutdown()
		}
		return nil
	})
}

// accept leaves the judgement to the view, except that a reply is never answered:
// two servers could answer each other for ever.
func accept(header miekg.Header) miekg.MsgAcceptAction {
	const isReply = 1 << 15
	if header.Bits&isReply != 0 {
		return miekg.MsgIgnore
	}
	return miekg.MsgAccept
}

// handle answers one query. connections are those that it can have come by, nil
// for UDP.
func (s *Server) handle(ctx context.Context, w miekg.ResponseWriter, query *miekg.Msg, connections *limited) {
	x := request{server: s, query: query, source: w.RemoteAddr(), transport: "udp", write: w.WriteMsg}
	if s.config.Observer != nil {
		x.began = time.Now()
	}
	if connections != nil {
		x.transport = "tcp"
	}
	defer x.contain()

	reply, source := x.answer()
	switch {
	case reply == nil:
	case source != SourceForward:
		x.send(reply, source)
	case connections == nil:
		x.send(s.forward.resolve(ctx, machine(x.source), query, reply))
	default:
		// The next query of the connection does not wait for an upstream resolver: its
		// answer may come first (RFC 7766).
		conn, ok := connections.find(w.LocalAddr(), x.source)
		if !ok {
			return
		}
		conn.hold()
		x.write = conn.writeMsg
		go func() {
			defer conn.drop()
			defer x.contain()
			x.send(s.forward.resolve(ctx, machine(x.source), query, reply))
		}()
	}
}

// current is the view of the latest snapshot and distances. What was looked up in one
// goes with it.
func (s *Server) current() *View {
	snapshot, distances := s.config.Snapshot(), s.config.Distances()
	view := s.view.Load()
	if view == nil || view.snapshot != snapshot || view.distances != distances {
		view = NewView(snapshot, distances)
		s.view.Store(view)
	}
	return view
}

// Resolve answers a query as a Machine of network asker would get it over TCP, for
// one who needs no socket. It is nil for a message that is itself a reply.
func (s *Server) Resolve(ctx context.Context, asker sixpn.Network, query *miekg.Msg) *miekg.Msg {
	began := time.Now()
	reply, source := s.current().answer(asker, query, capacity(query, false))
	if reply == nil {
		return nil
	}
	if source == SourceForward {
		// All who ask so share what one Machine may have of the upstream resolvers.
		reply, source = s.forward.resolve(ctx, sixpn.Fields{Network: asker}, query, reply)
	}
	reply.RecursionAvailable = true
	Fit(reply, query, false)
	s.observe(query, reply, source, "api", began)
	return reply
}

func (s *Server) observe(query, reply *miekg.Msg, source Source, transport string, began time.Time) {
	if s.config.Observer == nil {
		return
	}
	seen := Answered{Rcode: reply.Rcode, Source: source, Transport: transport, Duration: time.Since(began)}
	if len(query.Question) > 0 {
		seen.Type = query.Question[0].Qtype
	}
	s.config.Observer.Answered(seen)
}

// request is one query of a client on its way.
type request struct {
	server    *Server
	query     *miekg.Msg
	source    net.Addr
	transport string
	write     func(*miekg.Msg) error
	began     time.Time // zero without an observer
}

// answer is the view's answer for the network that the source address stands for.
// The router admits only Machines and peers, with addresses of their own; that is
// why the address can be believed. Anything else learns nothing.
func (x *request) answer() (*miekg.Msg, Source) {
	asker, ok := network(x.source)
	if !ok {
		x.server.config.Log.Warn("a DNS query came from an address that is no Machine's", "source", x.source)
		return new(miekg.Msg).SetRcode(x.query, miekg.RcodeRefused), SourceRefused
	}
	return x.server.current().answer(asker, x.query, capacity(x.query, x.transport == "udp"))
}

// send writes the reply.
func (x *request) send(reply *miekg.Msg, source Source) {
	reply.RecursionAvailable = true
	Fit(reply, x.query, x.transport == "udp")
	if err := x.write(reply); err != nil {
		x.server.config.Log.Debug("a DNS reply was not sent", "to", x.source, "error", err)
	}
	x.server.observe(x.query, reply, source, x.transport, x.began)
}

// contain makes a panic cost the one answer, not the agent.
func (x *request) contain() {
	if cause := recover(); cause != nil {
		x.server.config.Log.Error("answering a DNS query panicked", "cause", cause, "query", x.query.String(), "stack", string(debug.Stack()))
		_ = x.write(new(miekg.Msg).SetRcode(x.query, miekg.RcodeServerFailure))
	}
}

func network(source net.Addr) (n sixpn.Network, ok bool) {
	kind, fields := sixpn.Classify(address(source))
	return fields.Network, kind == sixpn.KindMachine
}

// machine is the Machine that a source address belongs to.
func machine(source net.Addr) sixpn.Fields {
	fields, _ := sixpn.Parse(address(source))
	fields.Low = 0
	return fields
}

// address is the IP address of a UDP or TCP client.
func address(source net.Addr) netip.Addr { return addrPort(source).Addr() }

func addrPort(source net.Addr) netip.AddrPort {
	switch source := source.(type) {
	case *net.UDPAddr:
		return source.AddrPort()
	case *net.TCPAddr:
		return source.AddrPort()
	}
	return netip.AddrPort{}
}
