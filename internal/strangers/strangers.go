// Package strangers bounds what connections cost whose other end has not shown yet who it
// is: anybody who reaches a port can open them.
package strangers

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits are of one port. What is zero is Default's.
type Limits struct {
	All  int           // connections at a time
	Each int           // of these, from one address
	Life time.Duration // of one; after that it is closed
}

// Default is enough for many hosts that come back at one moment from behind one address,
// each with several connections, and little for the host that is called.
var Default = Limits{All: 256, Each: 32, Life: 10 * time.Second}

// Room holds connections of strangers. Whoever comes is let in, and the oldest gives way
// when there are too many: of the same address, so that a flood from there hurts only
// itself, else of all. Who means it is gone again after a few round trips; a flood from
// many addresses must open All connections within these to be in the way.
type Room struct {
	limits Limits
	spares func(netip.Addr) bool

	mu     sync.Mutex
	visits list.List // of *Visit, the oldest first
	from   map[netip.Addr]int
}

// New makes one. Connections from addresses of which spares says that they are of known
// hosts give way only to others of the same address. It is called with the room locked.
func New(l Limits, spares func(netip.Addr) bool) *Room {
	if l.All == 0 {
		l.All = Default.All
	}
	if l.Each == 0 {
		l.Each = Default.Each
	}
	if l.Life == 0 {
		l.Life = Default.Life
	}
	return &Room{limits: l, spares: spares, from: map[netip.Addr]int{}}
}

// Visit is a connection in a Room, until it is closed or Settle is called.
type Visit struct {
	net.Conn
	room *Room
	addr netip.Addr

	// Of the room's lock.
	at   *list.Element // nil: it is in the room no more
	end  *time.Timer
	kept bool
}

// Enter takes a connection in, which is then used by what is returned.
func (r *Room) Enter(conn net.Conn) *Visit {
	v := &Visit{Conn: conn, room: r}
	if at, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		v.addr = at.Addr().Unmap()
	}
	r.mu.Lock()
	var late *Visit
	if r.from[v.addr] >= r.limits.Each {
		late = r.oldest(func(other *Visit) bool { return other.addr == v.addr })
	}
	if late == nil && r.visits.Len() >= r.limits.All {
		late = r.oldest(func(other *Visit) bool { return !r.spares(other.addr) })
	}
	if late != nil {
		r.remove(late)
	}
	v.at = r.visits.PushBack(v)
	r.from[v.addr]++
	v.end = time.AfterFunc(r.limits.Life, func() { v.Close() })
	r.mu.Unlock()
	if late != nil {
		late.Close()
	}
	return v
}

// oldest is for who holds the lock; nil: there is none that may go.
func (r *Room) oldest(may func(*Visit) bool) *Visit {
	for e := r.visits.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*Visit); !v.kept && may(v) {
			return v
		}
	}
	return nil
}

// remove is for who holds the lock.
func (r *Room) remove(v *Visit) {
	if v.at == nil {
		return
	}
	v.end.Stop()
	r.visits.Remove(v.at)
	v.at = nil
	if r.from[v.addr]--; r.from[v.addr] == 0 {
		delete(r.from, v.addr)
	}
}

func (v *Visit) leave() {
	v.room.mu.Lock()
	defer v.room.mu.Unlock()
	v.room.remove(v)
}

// Close is net.Conn's.
func (v *Visit) Close() error {
	v.leave()
	return v.Conn.Close()
}

// Settle is for one that has shown who it is: it counts no more, and has no end.
func (v *Visit) Settle() { v.leave() }

// Keep is for one that has shown a right to be served: it gives way to nobody, and still
// has an end.
func (v *Visit) Keep() {
	v.room.mu.Lock()
	defer v.room.mu.Unlock()
	v.kept = true
}

// Len is how many there are.
func (r *Room) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.visits.Len()
}
