package strangers_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/strangers"
)

// room is a Room with real connections.
type room struct {
	*strangers.Room
	t        *testing.T
	listener net.Listener
}

var known = netip.MustParseAddr("127.0.0.9")

func newRoom(t *testing.T, l strangers.Limits) *room {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return &room{strangers.New(l, func(a netip.Addr) bool { return a == known }), t, listener}
}

// visitor is both ends of a connection.
type visitor struct {
	t *testing.T
	*strangers.Visit
	outside net.Conn
}

func (r *room) enter(from string) visitor {
	r.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	outside, err := dialer.Dial("tcp4", r.listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { outside.Close() })
	inside, err := r.listener.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	visit := r.Enter(inside)
	r.t.Cleanup(func() { visit.Close() })
	return visitor{r.t, visit, outside}
}

// ends waits until the other end hears that the connection is closed.
func (v visitor) ends(what string) {
	v.t.Helper()
	_ = v.outside.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, v.outside); err != nil {
		v.t.Errorf("%s: %v, expected that it is closed", what, err)
	}
}

// stays says that it is open at this moment.
func (v visitor) stays(what string) {
	v.t.Helper()
	if _, err := v.Write([]byte("x")); err != nil {
		v.t.Errorf("%s: %v, expected that it is open", what, err)
	}
}

func (r *room) holds(n int) {
	r.t.Helper()
	if got := r.Len(); got != n {
		r.t.Errorf("the room has %d connections, expected %d", got, n)
	}
}

func TestOneAddressHurtsItself(t *testing.T) {
	r := newRoom(t, strangers.Limits{All: 4, Each: 2, Life: time.Hour})
	other := r.enter("127.0.0.2")
	first, second := r.enter("127.0.0.1"), r.enter("127.0.0.1")
	for range 10 {
		third := r.enter("127.0.0.1")
		first.ends("the oldest of an address that has too many")
		first, second = second, third
	}
	other.stays("that of another address")
	second.stays("the newest")
	r.holds(3)
}

func TestTheOldestGivesWay(t *testing.T) {
	r := newRoom(t, strangers.Limits{All: 3, Each: 2, Life: time.Hour})
	host, kept, oldest := r.enter(known.String()), r.enter("127.0.0.1"), r.enter("127.0.0.2")
	kept.Keep()
	r.enter("127.0.0.3")
	oldest.ends("the oldest of all that may go")
	host.stays("that of a known address")
	kept.stays("one that is kept")
	r.holds(3)
	// There is none that may go but the last one.
	last := r.enter(known.String())
	r.holds(3)
	more := r.enter("127.0.0.4")
	r.holds(4)
	for _, v := range []visitor{host, kept, last, more} {
		v.stays("who may not go, and the newest")
	}
	r.enter(known.String())
	host.ends("the oldest of a known address that has too many")
}

func TestLife(t *testing.T) {
	r := newRoom(t, strangers.Limits{All: 4, Each: 4, Life: 50 * time.Millisecond})
	kept, visit := r.enter("127.0.0.1"), r.enter("127.0.0.1")
	kept.Keep()
	visit.ends("one that says nothing")
	kept.ends("one that is kept, for its own time")
	r.holds(0)
	visit.Settle() // after the end it changes nothing
	if err := visit.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing again: %v", err)
	}
	settled := r.settle()
	r.enter("127.0.0.1").ends("one that came later")
	settled.stays("one that has shown who it is")
	settled.Settle() // again
	r.holds(0)
}

// settle has one show who it is within its time.
func (r *room) settle() visitor {
	for {
		v := r.enter("127.0.0.1")
		v.Settle()
		if _, err := v.Write([]byte("x")); err == nil {
			return v
		}
	}
}
