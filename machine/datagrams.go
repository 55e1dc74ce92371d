package machine

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// datagramRelay hands datagrams to a server and its answers back. Each client, known
// by address and port, has a session: a socket of its own, by which the server tells
// it from others and what comes back finds its way.
type datagramRelay struct {
	clients *net.UDPConn   // its address is the one that answers come from
	server  netip.AddrPort // IPv4
	// A session that nothing passed for idle ends. Of more than limit the one that was
	// unused for the longest time makes room: whoever makes addresses up costs others
	// no more than another port towards the server.
	idle  time.Duration
	limit int

	mu       sync.Mutex
	sessions map[netip.AddrPort]*datagramSession // by client
	byUse    list.List                           // of *datagramSession, the one used last at the end
}

type datagramSession struct {
	client netip.AddrPort
	server *net.UDPConn // connected
	used   time.Time
	place  *list.Element // in byUse
}

// largestDatagram is what any UDP length field can say. What IPv4 cannot carry of it
// (more than 65,507 bytes) is refused by the kernel, and lost.
const largestDatagram = 1<<16 - 1

// datagramBuffers are taken only while there is something to read, so that a session
// that waits costs no memory for it.
var datagramBuffers = sync.Pool{New: func() any { return new([largestDatagram]byte) }}

// run relays until the socket of the clients is closed; no session is left then.
func (r *datagramRelay) run() error {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range r.sessions {
			r.end(s)
		}
	}()
	buffer := make([]byte, largestDatagram)
	for {
		n, client, err := r.clients.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			time.Sleep(relayPause)
			continue
		}
		s, err := r.session(client)
		if err != nil {
			continue // lost, as any datagram may be
		}
		// What ICMP said about an earlier datagram is told instead of sending this one.
		if _, err = s.server.Write(buffer[:n]); errors.Is(err, unix.ECONNREFUSED) {
			_, _ = s.server.Write(buffer[:n])
		}
	}
}

// session finds a client's session, or begins one.
func (r *datagramRelay) session(client netip.AddrPort) (*datagramSession, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[client]; s != nil {
		r.use(s)
		return s, nil
	}
	if len(r.sessions) >= r.limit {
		r.endOldest()
	}
	address := net.UDPAddrFromAddrPort(r.server)
	server, err := net.DialUDP("udp4", nil, address)
	if err != nil && r.endOldest() { // descriptors or ports ran out before
		server, err = net.DialUDP("udp4", nil, address)
	}
	if err != nil {
		return nil, err
	}
	s := &datagramSession{client: client, server: server, used: time.Now()}
	s.place = r.byUse.PushBack(s)
	if r.sessions == nil {
		r.sessions = map[netip.AddrPort]*datagramSession{}
	}
	r.sessions[client] = s
	go r.answer(s)
	return s, nil
}

// answer hands what the server sends to the client, until the session ends.
func (r *datagramRelay) answer(s *datagramSession) {
	raw, err := s.server.SyscallConn()
	for err == nil {
		if !r.awaitIdle(s) {
			return
		}
		for err == nil {
			err = raw.Read(func(fd uintptr) bool { return r.answerOne(s, int(fd)) })
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(s)
}

// awaitIdle sets the time at which a session may have been idle for long enough. One
// that has been already is ended, which is false.
func (r *datagramRelay) awaitIdle(s *datagramSession) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := s.used.Add(r.idle)
	if !time.Now().Before(end) || s.server.SetReadDeadline(end) != nil {
		r.end(s)
		return false
	}
	return true
}

// answerOne hands one datagram on. It is false when there is none.
func (r *datagramRelay) answerOne(s *datagramSession, fd int) bool {
	buffer := datagramBuffers.Get().(*[largestDatagram]byte)
	defer datagramBuffers.Put(buffer)
	n, err := unix.Read(fd, buffer[:])
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	if err != nil {
		return true // ICMP: the server may have its socket again a moment later
	}
	r.mu.Lock()
	r.use(s)
	r.mu.Unlock()
	_, _ = r.clients.WriteToUDPAddrPort(buffer[:n], s.client)
	return true
}

// use, end and endOldest are called under the lock.
func (r *datagramRelay) use(s *datagramSession) {
	s.used = time.Now()
	r.byUse.MoveToBack(s.place) // nothing, if it has ended
}

func (r *datagramRelay) end(s *datagramSession) {
	if r.sessions[s.client] != s {
		return
	}
	delete(r.sessions, s.client)
	r.byUse.Remove(s.place)
	s.server.Close()
}

func (r *datagramRelay) endOldest() bool {
	oldest := r.byUse.Front()
	if oldest == nil {
		return false
	}
	r.end(oldest.Value.(*datagramSession))
	return true
}
