package state

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/sixpn/sixpn/internal/strangers"
)

// gate is what other hosts reach of a member of the store: it has them show their
// certificates, and relays those that are admitted to a unix socket on which etcd
// listens. Etcd by itself would ask for no more than a certificate of the authority, and
// only when a connection begins.
type gate struct {
	listener net.Listener
	config   *tls.Config
	socket   string
	idle     time.Duration // after which a connection ends on which nothing comes or goes, 0: never
	admits   func(key string) error
	room     *strangers.Room // of who has not shown yet
	log      *slog.Logger

	mu      sync.Mutex
	closed  bool
	open    map[net.Conn]string // by whom, "" for one that has not shown yet
	refused time.Time           // when it was last said
	work    sync.WaitGroup
}

// openGate listens, and lets nobody in before serve.
func openGate(at netip.AddrPort, socket string, c *tls.Config, idle time.Duration, l strangers.Limits, a *admission) (*gate, error) {
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, err
	}
	g := &gate{listener: listener, config: c.Clone(), socket: socket, idle: idle, admits: a.admits, room: strangers.New(l, a.spares), log: a.log, open: map[net.Conn]string{}}
	g.config.VerifyConnection = func(s tls.ConnectionState) error { return g.admits(CertificateKey(s.PeerCertificates[0])) }
	return g, nil
}

// gateTLS is how a gate is called, with these protocols. The host's own certificate is
// read for each connection.
func (l *Listen) gateTLS(protocols ...string) (*tls.Config, error) {
	encoded, err := os.ReadFile(l.CAFile)
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(encoded) {
		return nil, fmt.Errorf("%s: expected certificates in PEM", l.CAFile)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities, NextProtos: protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(l.CertFile, l.KeyFile)
			return &pair, err
		},
		// A ticket would be as good as the certificate it was given for.
		SessionTicketsDisabled: true,
	}, nil
}

func (g *gate) serve() {
	g.work.Go(func() {
		for {
			conn, err := g.listener.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				g.log.Warn("other hosts cannot be heard for now", "at", g.listener.Addr(), "error", err)
				time.Sleep(100 * time.Millisecond) // it has no descriptors left
			default:
				if visit := g.room.Enter(conn); g.note(visit, "") {
					g.work.Go(func() { g.relay(visit) })
				}
			}
		}
	})
}

// note keeps a connection among the open ones, as that of a host. It closes it once the
// gate is closed.
func (g *gate) note(conn net.Conn, key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		conn.Close()
		return false
	}
	g.open[conn] = key
	return true
}

// relay lasts as long as a connection.
func (g *gate) relay(conn *strangers.Visit) {
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.open, conn)
		conn.Close()
	}()
	shown := tls.Server(conn, g.config)
	if err := shown.Handshake(); err != nil { // for which there is as much time as for a visit
		g.refuse(conn, err)
		return
	}
	key := CertificateKey(shown.ConnectionState().PeerCertificates[0])
	// Who is removed between the two is seen by one of them.
	if !g.note(conn, key) || g.admits(key) != nil {
		return
	}
	conn.Settle()
	etcd, err := net.Dial("unix", g.socket)
	if err != nil {
		g.log.Debug("the store does not listen yet", "error", err)
		return
	}
	moves := func() {}
	if g.idle > 0 {
		end := time.AfterFunc(g.idle, func() { conn.Close() })
		moves = func() { end.Reset(g.idle) }
	}
	// Nobody who talks to a store closes one direction only.
	g.work.Go(func() {
		defer conn.Close()
		_, _ = io.Copy(shown, moving{etcd, moves}) // it ends with either
	})
	_, _ = io.Copy(etcd, moving{shown, moves})
	etcd.Close()
}

// moving tells when something was read.
type moving struct {
	io.Reader
	moves func()
}

func (s moving) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.moves()
	return n, err
}

// refusalInterval is how often it is said that a host is refused, which tries again and again.
const refusalInterval = time.Minute

func (g *gate) refuse(conn net.Conn, err error) {
	level := slog.LevelDebug // strangers cause it at will
	g.mu.Lock()
	if errors.Is(err, errNotAdmitted) && time.Since(g.refused) >= refusalInterval {
		level, g.refused = slog.LevelWarn, time.Now()
	}
	g.mu.Unlock()
	g.log.Log(context.Background(), level, "the store is kept from somebody", "from", conn.RemoteAddr(), "error", err)
}

// expel closes the connections of those who are admitted no more.
func (g *gate) expel() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn, key := range g.open {
		if key != "" && g.admits(key) != nil {
			g.log.Warn("a host is cut off from the store: it is of this fleet no more", "from", conn.RemoteAddr())
			conn.Close()
		}
	}
}

// close returns when all connections have ended.
func (g *gate) close() {
	g.listener.Close()
	g.mu.Lock()
	g.closed = true
	for conn := range g.open {
		conn.Close()
	}
	g.mu.Unlock()
	g.work.Wait()
}
