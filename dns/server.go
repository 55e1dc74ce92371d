package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// Config is what a Server is made of. Durations and counts of 0 take the
// default that is named with them.
type Config struct {
	// Packet and Listener are the sockets, normally on [::]:53 of the private
	// namespace with IPV6_FREEBIND: every address that reaches them is the
	// resolver's, and the reply comes from the one that was asked.
	Packet   net.PacketConn // a *net.UDPConn: others cannot tell which address was asked
	Listener net.Listener
	// Snapshot is the state to answer from, asked anew for each query.
	Snapshot func() *state.Snapshot
	Log      *slog.Logger

	ReadTimeout        time.Duration // for the first query of a connection and for each message's rest, 2 s
	IdleTimeout        time.Duration // between the queries of a connection, 10 s
	QueriesConnection  int           // queries of one connection, 1024
	Connections        int           // of all clients, 1024
	ConnectionsMachine int           // of one Machine, 16
}

// Server answers on two sockets.
type Server struct {
	config Config
}

// NewServer fills in the defaults.
func NewServer(config Config) *Server {
	setDefault(&config.ReadTimeout, 2*time.Second)
	setDefault(&config.IdleTimeout, 10*time.Second)
	setDefault(&config.QueriesConnection, 1024)
	setDefault(&config.Connections, 1024)
	setDefault(&config.ConnectionsMachine, 16)
	return &Server{config: config}
}

func setDefault[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// Run answers until ctx is done, then closes both sockets and returns nil. Any
// other end is an error of a socket.
func (s *Server) Run(ctx context.Context) error {
	if _, ok := s.config.Packet.(*net.UDPConn); !ok {
		return fmt.Errorf("serve DNS over udp: the socket is a %T, expected a *net.UDPConn", s.config.Packet)
	}
	group, ctx := errgroup.WithContext(ctx)
	s.serve(ctx, group, "udp", &miekg.Server{PacketConn: s.config.Packet, UDPSize: maxUDP})
	s.serve(ctx, group, "tcp", &miekg.Server{
		Listener:      newLimited(s.config.Listener, s.config.Connections, s.config.ConnectionsMachine),
		MaxTCPQueries: s.config.QueriesConnection,
		IdleTimeout:   func() time.Duration { return s.config.IdleTimeout },
	})
	return group.Wait()
}

// serve runs one of the two servers and shuts it down when ctx is done.
func (s *Server) serve(ctx context.Context, group *errgroup.Group, network string, server *miekg.Server) {
	started := make(chan struct{})
	ended := make(chan struct{})
	server.Net = network
	server.Handler = miekg.HandlerFunc(s.handle)
	server.MsgAcceptFunc = accept
	server.ReadTimeout = s.config.ReadTimeout
	server.WriteTimeout = s.config.ReadTimeout
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
			// What is being answered takes microseconds; a stuck client waits for nothing.
			_ = server.Shutdown()
		}
		return nil
	})
}

// accept leaves the judgement to Answer, except that a reply is never answered:
// two servers could answer each other for ever.
func accept(header miekg.Header) miekg.MsgAcceptAction {
	const isReply = 1 << 15
	if header.Bits&isReply != 0 {
		return miekg.MsgIgnore
	}
	return miekg.MsgAccept
}

// handle answers one query. A panic costs the one answer, not the agent.
func (s *Server) handle(w miekg.ResponseWriter, query *miekg.Msg) {
	defer func() {
		if cause := recover(); cause != nil {
			s.config.Log.Error("answering a DNS query panicked", "cause", cause, "query", query.String(), "stack", string(debug.Stack()))
			_ = w.WriteMsg(new(miekg.Msg).SetRcode(query, miekg.RcodeServerFailure))
		}
	}()

	source := w.RemoteAddr()
	reply := s.reply(source, query)
	if reply == nil {
		return
	}
	_, udp := source.(*net.UDPAddr)
	Fit(reply, query, udp)
	if err := w.WriteMsg(reply); err != nil {
		s.config.Log.Debug("a DNS reply was not sent", "to", source, "error", err)
	}
}

// reply is Answer for the network that the source address stands for. The router
// admits only Machines and peers, with addresses of their own; that is why the
// address can be believed. Anything else learns nothing.
func (s *Server) reply(source net.Addr, query *miekg.Msg) *miekg.Msg {
	asker, ok := network(source)
	if !ok {
		s.config.Log.Warn("a DNS query came from an address that is no Machine's", "source", source)
		return new(miekg.Msg).SetRcode(query, miekg.RcodeRefused)
	}
	return Answer(s.config.Snapshot(), asker, query)
}

func network(source net.Addr) (n sixpn.Network, ok bool) {
	kind, fields := sixpn.Classify(address(source))
	return fields.Network, kind == sixpn.KindMachine
}

// address is the IP address of a UDP or TCP client.
func address(source net.Addr) netip.Addr {
	switch source := source.(type) {
	case *net.UDPAddr:
		return source.AddrPort().Addr()
	case *net.TCPAddr:
		return source.AddrPort().Addr()
	}
	return netip.Addr{}
}
