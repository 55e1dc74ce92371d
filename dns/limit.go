package dns

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

// limited is a listener that closes at once what is beyond a number of open
// connections, in all, of one network and of one Machine, so that no tenant holds
// them all, however many Machines it has.
type limited struct {
	net.Listener
	config Config

	mu       sync.Mutex
	machines map[sixpn.Fields]int
	networks map[sixpn.Network]int
	sum      int
	now      map[ends]*limitedConn
}

// ends are a connection's addresses here and there.
type ends struct{ local, remote netip.AddrPort }

func newLimited(inner net.Listener, config Config) *limited {
	return &limited{Listener: inner, config: config, machines: make(map[sixpn.Fields]int), networks: make(map[sixpn.Network]int), now: make(map[ends]*limitedConn)}
}

// Accept returns the next connection within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		// A Machine has a whole /112: counting single addresses would limit nothing.
		client := machine(conn.RemoteAddr())
		accepted := &limitedConn{Conn: conn, users: 1, client: client, of: l}
		if l.take(accepted) {
			return accepted, nil
		}
		_ = conn.Close()
	}
}

func (l *limited) take(conn *limitedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum >= l.config.Connections || l.networks[conn.client.Network] >= l.config.ConnectionsNetwork || l.machines[conn.client] >= l.config.ConnectionsMachine {
		return false
	}
	l.machines[conn.client]++
	l.networks[conn.client.Network]++
	l.sum++
	l.now[conn.ends()] = conn
	return true
}

func (l *limited) give(conn *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum--
	if l.machines[conn.client]--; l.machines[conn.client] == 0 {
		delete(l.machines, conn.client)
	}
	if l.networks[conn.client.Network]--; l.networks[conn.client.Network] == 0 {
		delete(l.networks, conn.client.Network)
	}
	if l.now[conn.ends()] == conn {
		delete(l.now, conn.ends())
	}
}

// find is the open connection between two addresses.
func (l *limited) find(local, remote net.Addr) (*limitedConn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn, ok := l.now[ends{addrPort(local), addrPort(remote)}]
	return conn, ok
}

// limitedConn is a connection that is closed once nobody uses it: its reader, and
// each who has a reply to write to it.
type limitedConn struct {
	net.Conn
	client sixpn.Fields // the Machine
	of     *limited

	mu     sync.Mutex
	users  int
	closed bool // by its reader
}

func (c *limitedConn) ends() ends { return ends{addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())} }

func (c *limitedConn) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users++
}

// drop gives the place back with the last user.
func (c *limitedConn) drop() {
	c.mu.Lock()
	c.users--
	last := c.users == 0
	c.mu.Unlock()
	if last {
		_ = c.Conn.Close()
		c.of.give(c)
	}
}

// Close ends the reader's use, once.
func (c *limitedConn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if !again {
		c.drop()
	}
	return nil
}

// Write ends the connection if the client does not read: what it was sent so far is
// not whole.
func (c *limitedConn) Write(wire []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.of.config.ReadTimeout)); err != nil {
		return 0, err
	}
	size, err := c.Conn.Write(wire)
	if err != nil {
		_ = c.Conn.Close()
	}
	return size, err
}

// writeMsg writes a reply in one piece: some clients take what one read gets for
// the whole of it.
func (c *limitedConn) writeMsg(reply *miekg.Msg) error {
	wire, err := reply.PackBuffer(make([]byte, 2, 2+1024))
	if err != nil {
		return err
	}
	framed := make([]byte, 2, 2+len(wire))
	binary.BigEndian.PutUint16(framed, uint16(len(wire)))
	_, err = c.Write(append(framed, wire...))
	return err
}
