package dns

import (
	"net"
	"net/netip"
	"sync"
)

// limited is a listener that closes at once what is beyond a number of open
// connections, in all and of one Machine, so that no tenant holds them all.
type limited struct {
	net.Listener
	all, each int

	mu   sync.Mutex
	open map[netip.Prefix]int // by the Machine's /112
	sum  int
}

func newLimited(inner net.Listener, all, each int) *limited {
	return &limited{Listener: inner, all: all, each: each, open: make(map[netip.Prefix]int)}
}

// Accept returns the next connection within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		// A Machine has a whole /112: counting single addresses would limit nothing.
		client := netip.PrefixFrom(address(conn.RemoteAddr()), 112).Masked()
		if l.take(client) {
			return &limitedConn{Conn: conn, release: func() { l.give(client) }}, nil
		}
		_ = conn.Close()
	}
}

func (l *limited) take(client netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum >= l.all || l.open[client] >= l.each {
		return false
	}
	l.open[client]++
	l.sum++
	return true
}

func (l *limited) give(client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum--
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close gives the place back, once.
func (c *limitedConn) Close() error {
	defer c.once.Do(c.release)
	return c.Conn.Close()
}
