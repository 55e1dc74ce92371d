package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// shared are the tables that a limit of all hosts is kept in, and counted.
var shared = []string{
	bpf.RouterMapShares, bpf.RouterMapFences, bpf.RouterMapBackends, bpf.RouterMapBackendLoad, bpf.RouterMapServices,
}

// layOtherwise has the agent of each host in turn take the place of a router of a build
// whose tables are laid out in another way, while connections are held and more are asked
// for: those go on, and there are never more. Once some end, who waits has their places.
func (l *limited) layOtherwise(ctx context.Context, t *testing.T) {
	inside := nettest.Get[*netns.Namespace](t)(l.server.Namespace())
	defer inside.Close()
	most, done := watchConnections(ctx, t, inside)
	opened := make(chan held, 2*sharedLimit)
	for i := range 2 * sharedLimit {
		go l.open(ctx, i%2, opened)
	}
	var have []held
	for range sharedLimit {
		have = append(have, take(ctx, t, opened))
	}
	for i, h := range l.fleet.Hosts {
		nettest.Must(t, h.KillAgent())
		layOtherwise(t, h, sixpn.FirstHost+sixpn.Host(i), shared)
		nettest.Must(t, h.StartAgent(ctx))
		for _, held := range have {
			nettest.Must(t, held.conn.SetDeadline(time.Now().Add(nettest.Slow(10*time.Second))))
			nettest.Must(t, echoes(held.conn))
		}
	}
	for _, held := range have {
		nettest.Must(t, held.conn.Close())
	}
	for range sharedLimit {
		nettest.Must(t, take(ctx, t, opened).conn.Close())
	}
	done()
	if n := most.Load(); n != sharedLimit {
		t.Errorf("the Machine had up to %d connections at once, its limit is %d", n, sharedLimit)
	}
}
