package fleet

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sixpn/sixpn/internal/strangers"
)

// door has who connects show who it is, and leads hosts of the fleet to one server and
// strangers to another, which may do little there and not stay.
type door struct {
	listener net.Listener
	config   *tls.Config
	store    Members
	room     *strangers.Room
	log      *slog.Logger

	life     context.Context
	work     sync.WaitGroup
	hosts    *lane
	visitors *lane
}

// newDoor makes one whose life ends with ctx.
func newDoor(ctx context.Context, l net.Listener, config *tls.Config, c ServiceConfig, log *slog.Logger) *door {
	d := &door{listener: l, config: config, store: c.Store, log: log, life: ctx, hosts: newLane(l.Addr()), visitors: newLane(l.Addr())}
	d.room = strangers.New(c.Strangers, func(a netip.Addr) bool { return c.Store.Snapshot().HostAt(a) })
	return d
}

// acceptPause is before the next try, when there are no descriptors left.
const acceptPause = 100 * time.Millisecond

// open returns at the end of the door's life, when nobody is on the way to a server any more.
func (d *door) open() error {
	defer d.work.Wait()
	closed := make(chan error, 1)
	context.AfterFunc(d.life, func() { closed <- d.listener.Close() })
	for {
		conn, err := d.listener.Accept()
		switch {
		case d.life.Err() != nil:
			return <-closed
		case err != nil:
			d.log.Warn("other hosts cannot be heard for now", "error", err)
			select {
			case <-time.After(acceptPause):
			case <-d.life.Done():
			}
		default:
			visit := d.room.Enter(conn)
			d.work.Go(func() { d.lead(visit) })
		}
	}
}

// lead ends with the handshake, for which there is as much time as for the visit.
func (d *door) lead(visit *strangers.Visit) {
	conn := tls.Server(visit, d.config)
	if err := conn.HandshakeContext(d.life); err != nil {
		d.log.Debug("a connection was refused", "from", visit.RemoteAddr(), "error", err) // strangers cause it at will
		visit.Close()
		return
	}
	to := d.visitors
	// A certificate outlives the host that was removed.
	if shown := conn.ConnectionState().PeerCertificates; len(shown) > 0 {
		if _, ok := d.store.Snapshot().HostOf(shown[0]); ok {
			visit.Settle()
			to = d.hosts
		}
	}
	select {
	case to.conns <- conn:
	case <-d.life.Done():
		visit.Close()
	}
}

// lane is the listener of one of the servers.
type lane struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
	addr   net.Addr
}

func newLane(a net.Addr) *lane {
	l := &lane{conns: make(chan net.Conn), addr: a}
	l.closed, l.close = context.WithCancel(context.Background())
	return l
}

// Accept is net.Listener's.
func (l *lane) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed.Done():
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's.
func (l *lane) Close() error {
	l.close()
	return nil
}

// Addr is net.Listener's.
func (l *lane) Addr() net.Addr { return l.addr }

type visitKey struct{}

// withVisit is http.Server's ConnContext.
func withVisit(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, visitKey{}, conn.(*tls.Conn).NetConn())
}

// keepVisit has who asks stay, for its own time, whoever else comes.
func keepVisit(ctx context.Context) {
	if visit, ok := ctx.Value(visitKey{}).(*strangers.Visit); ok {
		visit.Keep()
	}
}
