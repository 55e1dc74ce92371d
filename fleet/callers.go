package fleet

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
)

// callers is who is connected to the service. Each request is looked at when it comes; what
// goes on for long, such as logs that are followed, ends with the host that asked for it.
type callers struct {
	log *slog.Logger

	mu   sync.Mutex
	open map[*tls.Conn]bool
}

// note is http.Server's ConnState.
func (c *callers) note(conn net.Conn, state http.ConnState) {
	shown, ok := conn.(*tls.Conn)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateActive: // it has shown its certificate
		c.open[shown] = true
	case http.StateClosed, http.StateHijacked:
		delete(c.open, shown)
	}
}

// expel closes the connections of hosts that are removed, until ctx ends.
func (c *callers) expel(ctx context.Context, store Members) {
	for snapshot := store.Snapshot(); ; {
		next, err := store.Next(ctx, snapshot)
		if err != nil {
			return
		}
		same := maps.Equal(snapshot.Hosts, next.Hosts)
		if snapshot = next; same {
			continue
		}
		c.mu.Lock()
		for conn := range c.open {
			certificates := conn.ConnectionState().PeerCertificates
			if len(certificates) == 0 {
				continue // it may only join
			}
			if _, ok := snapshot.HostOf(certificates[0]); !ok {
				c.log.Warn("a host is cut off: it is of this fleet no more", "host", certificates[0].Subject.CommonName, "from", conn.RemoteAddr())
				conn.NetConn().Close()
			}
		}
		c.mu.Unlock()
	}
}
