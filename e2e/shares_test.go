package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// limited is a server on the first host, for each of whose ports there is one limit of all
// hosts, and a client on each host.
type limited struct {
	regions
	server *nettest.Machine
}

// sharedLimit is the hard limit of each port of a limited server, and less than want it.
const sharedLimit, wantShares = 5, 14

// TestHardLimitOfAllHosts has clients on two hosts ask for more connections, or flows of
// datagrams, than a Machine may have: it never has more at any moment, whoever waits gets
// what becomes free, and what a lost host had goes to the others, and is not its own again
// when it is back. How the hosts reach each other does not matter.
func TestHardLimitOfAllHosts(t *testing.T) {
	for _, row := range []struct {
		name   string
		native bool
	}{{"wireguard", false}, {"native", true}} {
		t.Run(row.name, func(t *testing.T) {
			ctx := nettest.Context(t)
			l := startLimited(ctx, t, row.native)
			t.Run("datagrams", func(t *testing.T) { l.flowsOfDatagrams(ctx, t) })
			t.Run("connections", func(t *testing.T) { l.connections(ctx, t) })
			if !row.native {
				t.Run("other layouts", func(t *testing.T) { l.layOtherwise(ctx, t) })
			}
			t.Run("a host is lost", func(t *testing.T) { l.loseHost(ctx, t) })
		})
	}
}

func startLimited(ctx context.Context, t *testing.T, native bool) *limited {
	t.Helper()
	fleet := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "iad"}, Native: native,
		Host: nettest.Config{AgentFlags: []string{"--round-trip-interval", "100ms", "--flow-timeout-udp", datagramLife.String(), "--expiry-interval", "200ms"}},
	})
	first := fleet.Hosts[0]
	nettest.Must(t, first.CreateOrg(ctx, "acme"))
	nettest.Must(t, first.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, first.CreateApp(ctx, "clients", "acme"))
	l := &limited{regions: regions{fleet: fleet}}
	service := func(protocol string) api.Service {
		return api.Service{
			Protocol: protocol, InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}},
			Concurrency: &api.Concurrency{Type: "connections", HardLimit: sharedLimit},
		}
	}
	l.server = l.create(ctx, t, "web", first, api.MachineConfig{
		Init:     api.Init{Exec: first.Payload("serve", "-tcp", "8080", "-udp", "8080")},
		Services: []api.Service{service("tcp"), service("udp")},
	})
	for i, h := range fleet.Hosts {
		l.clients[i] = nettest.Get[*nettest.Machine](t)(h.Run(ctx, "clients", nettest.Options{}, h.Payload("idle")...))
		l.inside[i] = nettest.Get[*netns.Namespace](t)(l.clients[i].Namespace())
		t.Cleanup(func() { l.inside[i].Close() })
	}
	l.vip = netip.AddrPortFrom(nettest.Get[netip.Addr](t)(first.AllocateVIP(ctx, "web", "acme")), 80)
	for i := range fleet.Hosts {
		l.reach(ctx, t, i, l.server)
	}
	return l
}

// held is a connection of a client.
type held struct {
	client int
	conn   net.Conn
}

// open has a client try until it has a connection.
func (l *limited) open(ctx context.Context, client int, opened chan<- held) {
	for ctx.Err() == nil {
		if conn, _, err := l.connectWithin(ctx, client, 3*time.Second); err == nil {
			opened <- held{client, conn}
			return
		}
	}
}

func take(ctx context.Context, t *testing.T, opened <-chan held) held {
	t.Helper()
	select {
	case h := <-opened:
		return h
	case <-ctx.Done():
		t.Fatal("nobody of who waits gets the place that became free")
		return held{}
	}
}

// connections has each client get half of the connections, one after the other.
func (l *limited) connections(ctx context.Context, t *testing.T) {
	inside := nettest.Get[*netns.Namespace](t)(l.server.Namespace())
	defer inside.Close()
	most, done := watchConnections(ctx, t, inside)
	opened := make(chan held, wantShares)
	for i := range wantShares {
		go l.open(ctx, i%2, opened)
	}
	var all []held
	by := [2]int{}
	for range sharedLimit {
		all = append(all, take(ctx, t, opened))
	}
	for i := range wantShares {
		by[all[i].client]++
		all[i].conn.Close()
		if len(all) < wantShares {
			all = append(all, take(ctx, t, opened))
		}
	}
	if by != [2]int{wantShares / 2, wantShares / 2} {
		t.Errorf("the clients got %v connections, want half each", by)
	}
	if n := most.Load(); n != sharedLimit {
		t.Errorf("the Machine had up to %d connections at once, its limit is %d", n, sharedLimit)
	}
	done()
}

// loseHost has the second host be lost with all places, and come back.
func (l *limited) loseHost(ctx context.Context, t *testing.T) {
	first, second := l.fleet.Hosts[0], l.fleet.Hosts[1]
	opened := make(chan held, wantShares)
	openCtx, cancel := context.WithCancel(ctx)
	for range sharedLimit {
		go l.open(openCtx, 1, opened)
	}
	var away []net.Conn
	for range sharedLimit {
		away = append(away, take(ctx, t, opened).conn)
		defer away[len(away)-1].Close()
	}
	cancel()
	l.divided(ctx, t, api.LimitShare{HostName: second.Name, Flows: sharedLimit, Share: sharedLimit, Standing: api.LimitShareStandingAgreed})
	deadline, _ := ctx.Deadline()
	for _, conn := range away {
		nettest.Must(t, conn.SetDeadline(deadline))
		nettest.Must(t, echoes(conn))
	}
	nettest.Must(t, second.KillAgent())
	l.divided(ctx, t, api.LimitShare{HostName: second.Name, Flows: sharedLimit, Share: sharedLimit, Standing: api.LimitShareStandingQuiet})
	nettest.Must(t, second.Uplink.Cut())
	for range sharedLimit {
		go l.open(ctx, 0, opened)
	}
	var kept []net.Conn
	for range sharedLimit {
		kept = append(kept, take(ctx, t, opened).conn)
		defer kept[len(kept)-1].Close()
	}
	nettest.Must(t, kept[0].SetDeadline(deadline))
	l.divided(ctx, t, api.LimitShare{HostName: first.Name, Flows: sharedLimit, Share: sharedLimit, Standing: api.LimitShareStandingAgreed},
		api.LimitShare{HostName: second.Name, Standing: api.LimitShareStandingFenced})

	// It is back, and its kernel has the connections still: their places are others' now,
	// whether its agent runs or not.
	nettest.Must(t, second.Uplink.Heal())
	for _, conn := range away {
		_, err := conn.Write([]byte("x"))
		nettest.Must(t, err)
	}
	nettest.Must(t, nettest.Eventually(ctx, "the first host drops what comes of lost connections", func(ctx context.Context) error {
		dropped, err := first.Drops(ctx, "fenced")
		if err == nil && dropped < 2*sharedLimit {
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

// divided waits until the server's host says that its connections are divided so among the
// hosts that have any.
func (l *limited) divided(ctx context.Context, t *testing.T, want ...api.LimitShare) {
	t.Helper()
	slices.SortFunc(want, func(a, b api.LimitShare) int { return strings.Compare(a.HostName, b.HostName) })
	nettest.Must(t, nettest.Eventually(ctx, "the limit is divided as is expected", func(ctx context.Context) error {
		answer, err := l.fleet.Hosts[0].Client.GetMachineLiveWithResponse(ctx, l.server.App, l.server.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		var got []api.LimitShare
		for _, limit := range answer.JSON200.Limits {
			if limit.Protocol != "tcp" || limit.Vip != l.vip.Addr().String() || limit.HardLimit != sharedLimit {
				continue
			}
			for _, share := range limit.Hosts {
				if share.Waiting = false; share.Flows+share.Share > 0 || share.Standing == api.LimitShareStandingFenced {
					got = append(got, share)
				}
			}
		}
		slices.SortFunc(got, func(a, b api.LimitShare) int { return strings.Compare(a.HostName, b.HostName) })
		if !slices.Equal(got, want) {
			return fmt.Errorf("it is %+v, expected %+v", got, want)
		}
		return nil
	}))
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
