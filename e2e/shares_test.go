package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// TestHardLimitOfAllHosts has clients on two hosts open more connections than a Machine
// may have: it never has more at any moment, whoever waits gets what becomes free, and
// what a lost host had goes to the others, and is not its own again when it is back.
func TestHardLimitOfAllHosts(t *testing.T) {
	const limit, connections = 5, 14
	ctx := nettest.Context(t)
	fleet := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "iad"}, Host: nettest.Config{AgentFlags: []string{"--round-trip-interval", "100ms"}},
	})
	first, second := fleet.Hosts[0], fleet.Hosts[1]
	nettest.Must(t, first.CreateOrg(ctx, "acme"))
	nettest.Must(t, first.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, first.CreateApp(ctx, "clients", "acme"))
	r := &regions{fleet: fleet}
	server := r.create(ctx, t, "web", first, api.MachineConfig{
		Init: api.Init{Exec: first.Payload("serve", "-tcp", "8080")},
		Services: []api.Service{{
			Protocol: "tcp", InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}},
			Concurrency: &api.Concurrency{Type: "connections", HardLimit: limit},
		}},
	})
	for i, h := range fleet.Hosts {
		r.clients[i] = nettest.Get[*nettest.Machine](t)(h.Run(ctx, "clients", nettest.Options{}, h.Payload("idle")...))
		r.inside[i] = nettest.Get[*netns.Namespace](t)(r.clients[i].Namespace())
		t.Cleanup(func() { r.inside[i].Close() })
	}
	r.vip = netip.AddrPortFrom(nettest.Get[netip.Addr](t)(first.AllocateVIP(ctx, "web", "acme")), 80)
	for i := range fleet.Hosts {
		r.reach(ctx, t, i, server)
	}

	inside := nettest.Get[*netns.Namespace](t)(server.Namespace())
	defer inside.Close()
	most, done := watchConnections(ctx, t, inside)

	type held struct {
		client int
		conn   net.Conn
	}
	opened := make(chan held, connections)
	open := func(ctx context.Context, client int) {
		for ctx.Err() == nil {
			if conn, _, err := r.connectWithin(ctx, client, 3*time.Second); err == nil {
				opened <- held{client, conn}
				return
			}
		}
	}
	for i := range connections {
		go open(ctx, i%2)
	}
	take := func() held {
		t.Helper()
		select {
		case h := <-opened:
			return h
		case <-ctx.Done():
			t.Fatal("nobody of who waits gets the place that became free")
			return held{}
		}
	}
	var all []held
	by := [2]int{}
	for range limit {
		all = append(all, take())
	}
	for i := range connections {
		by[all[i].client]++
		all[i].conn.Close()
		if len(all) < connections {
			all = append(all, take())
		}
	}
	if by != [2]int{connections / 2, connections / 2} {
		t.Errorf("the clients got %v connections, want half each", by)
	}
	if n := most.Load(); n != limit {
		t.Errorf("the Machine had up to %d connections at once, its limit is %d", n, limit)
	}
	done()

	// All places are the second host's, which is then lost with them.
	lostCtx, cancel := context.WithCancel(ctx)
	for range limit {
		go open(lostCtx, 1)
	}
	var away []net.Conn
	for range limit {
		away = append(away, take().conn)
		defer away[len(away)-1].Close()
	}
	cancel()
	deadline, _ := ctx.Deadline()
	for _, conn := range away {
		nettest.Must(t, conn.SetDeadline(deadline))
		nettest.Must(t, echoes(conn))
	}
	nettest.Must(t, second.KillAgent())
	nettest.Must(t, second.Uplink.Cut())
	for range limit {
		go open(ctx, 0)
	}
	var kept []net.Conn
	for range limit {
		kept = append(kept, take().conn)
		defer kept[len(kept)-1].Close()
	}
	nettest.Must(t, kept[0].SetDeadline(deadline))

	// It is back, and its kernel has the connections still: their places are others' now,
	// whether its agent runs or not.
	nettest.Must(t, second.Uplink.Heal())
	for _, conn := range away {
		_, err := conn.Write([]byte("x"))
		nettest.Must(t, err)
	}
	nettest.Must(t, nettest.Eventually(ctx, "the first host drops what comes of lost connections", func(ctx context.Context) error {
		dropped, err := first.Drops(ctx, "fenced")
		if err == nil && dropped < 2*limit {
			err = fmt.Errorf("it dropped %d packets", dropped)
		}
		return err
	}))
	for _, conn := range away {
		nettest.Must(t, conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection whose place is another's goes on: %d bytes, %v", n, err)
		}
		nettest.Must(t, conn.SetReadDeadline(deadline))
	}
	nettest.Must(t, second.StartAgent(ctx))
	for _, conn := range away {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection whose place is another's ends with %v, expected a reset", err)
		}
	}
	nettest.Must(t, echoes(kept[0]))
}

// echoes is whether a server answers over a connection.
func echoes(conn net.Conn) error {
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

// watchConnections looks, again and again, at how many connections a namespace has to
// port 8080, and keeps the highest number.
func watchConnections(ctx context.Context, t *testing.T, inside *netns.Namespace) (most *atomic.Int64, done func()) {
	t.Helper()
	most = &atomic.Int64{}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		var err error
		for ctx.Err() == nil && err == nil {
			err = inside.Do(func() error {
				n, err := countConnections("/proc/thread-self/net/tcp6", 8080)
				most.Store(max(most.Load(), n))
				return err
			})
		}
		ended <- err
	}()
	return most, func() {
		cancel()
		nettest.Must(t, <-ended)
	}
}

// countConnections counts those that a server has not closed yet.
func countConnections(table string, port uint16) (n int64, err error) {
	file, err := os.Open(table)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	const established, closeWait = "01", "08"
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 3 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && (fields[3] == established || fields[3] == closeWait) {
			n++
		}
	}
	return n, lines.Err()
}
