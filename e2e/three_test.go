package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/netns"
)

// three are hosts in iad, ord and fra: of the two others, ord is the nearer one to iad on
// the map. On each of those is a server of app web, and on iad their client.
type three struct {
	*nettest.Fleet
	client   *nettest.Machine
	ord, fra *nettest.Machine
	vip      netip.Addr
}

// TestThreeHosts is what two hosts cannot show.
func TestThreeHosts(t *testing.T) {
	ctx := nettest.Context(t)
	f := &three{Fleet: nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "ord", "fra"}, Host: nettest.Config{AgentFlags: []string{"--round-trip-interval", "100ms"}},
	})}
	iad := f.Hosts[0]
	nettest.Must(t, iad.CreateOrg(ctx, "acme"))
	nettest.Must(t, iad.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, iad.CreateApp(ctx, "client", "acme"))
	nettest.Must(t, f.Settle(ctx))
	server := nettest.Options{Services: []string{fmt.Sprintf("%d:%d/tcp", vipPort, tcpPort)}}
	f.ord = nettest.Get[*nettest.Machine](t)(f.Hosts[1].Run(ctx, "web", server, iad.Payload(serve...)...))
	f.fra = nettest.Get[*nettest.Machine](t)(f.Hosts[2].Run(ctx, "web", server, iad.Payload(serve...)...))
	f.client = nettest.Get[*nettest.Machine](t)(iad.Run(ctx, "client", nettest.Options{}, iad.Payload("idle")...))
	f.vip = nettest.Get[netip.Addr](t)(iad.AllocateVIP(ctx, "web", ""))
	nettest.Must(t, f.Settle(ctx))
	t.Run("one source port on three hosts", func(t *testing.T) { f.samePort(ctx, t) })
	t.Run("nearest is what was measured", func(t *testing.T) { f.nearest(ctx, t) })
	t.Run("a tunnel that works one way", func(t *testing.T) { f.oneWay(ctx, t) })
}

// nearest makes the one near on the map the far one, then the other.
func (f *three) nearest(ctx context.Context, t *testing.T) {
	const each = 150 * time.Millisecond // more than a busy machine adds
	for _, row := range []struct {
		slow      *nettest.Host
		near, far *nettest.Machine
	}{{f.Hosts[1], f.fra, f.ord}, {f.Hosts[2], f.ord, f.fra}} {
		nettest.Must(t, row.slow.Uplink.Delay(each))
		want := []string{row.near.Addr.String(), row.far.Addr.String()}
		nettest.Must(t, nettest.Eventually(ctx, "names say what is nearest", func(ctx context.Context) error {
			got, err := nettest.Probe[payload.Lookup](ctx, f.client, "lookup", "AAAA", "top2.nearest.of.web.internal")
			if err == nil && !slices.Equal(got.Answers, want) {
				err = fmt.Errorf("they say %v, expected %v", got.Answers, want)
			}
			return err
		}))
		nettest.Must(t, nettest.Eventually(ctx, "Flycast leads to what is nearest", func(ctx context.Context) error {
			got, err := nettest.Probe[payload.Connections](ctx, f.client, "connect", "-count", fmt.Sprint(probes), on(f.vip, vipPort))
			if err == nil && got.Answers[row.near.ID] != probes {
				err = fmt.Errorf("of %d connections the Machines got %v: %v", probes, got.Answers, got.Errors)
			}
			return err
		}))
		nettest.Must(t, row.slow.Uplink.Delay(0))
	}
}

// samePort has clients on three hosts, one of them the backend's and one the backend
// itself, use one source port towards one Flycast address: they all have the same slot. Each
// connection gets what was sent over it, and goes on when another one is reset.
func (f *three) samePort(ctx context.Context, t *testing.T) {
	const port = 41000
	ord := f.Hosts[1]
	nettest.Must(t, f.Hosts[0].CreateApp(ctx, "alone", "acme"))
	nettest.Must(t, f.Settle(ctx))
	server := nettest.Get[*nettest.Machine](t)(ord.Run(ctx, "alone", nettest.Options{Services: []string{fmt.Sprintf("%d:%d/tcp", vipPort, tcpPort)}}, ord.Payload(serve...)...))
	vip := on(nettest.Get[netip.Addr](t)(f.Hosts[0].AllocateVIP(ctx, "alone", "")), vipPort)
	nettest.Must(t, f.Settle(ctx))

	deadline, _ := ctx.Deadline()
	clients := []*nettest.Machine{f.client, f.fra, f.ord, server}
	var conns []*net.TCPConn
	seen := map[string]bool{}
	slots := map[string]bool{}
	for _, client := range clients {
		inside := nettest.Get[*netns.Namespace](t)(client.Namespace())
		defer inside.Close()
		conn := nettest.Get[net.Conn](t)(inside.Dial(ctx, "tcp6", &net.TCPAddr{Port: port}, vip)).(*net.TCPConn)
		defer conn.Close()
		nettest.Must(t, conn.SetDeadline(deadline))
		greeting := nettest.Get[string](t)(bufio.NewReader(conn).ReadString('\n'))
		id, from, _ := strings.Cut(strings.TrimSpace(greeting), " ")
		if id != server.ID {
			t.Fatalf("Machine %s of %s is greeted with %q, expected by Machine %s", client.ID, client.App, greeting, server.ID)
		}
		at := nettest.Get[netip.AddrPort](t)(netip.ParseAddrPort(from))
		seen[from] = true
		slots[fmt.Sprintf("%x:%d", at.Addr().AsSlice()[14:], at.Port())] = true
		conns = append(conns, conn)
	}
	if len(seen) != len(clients) || len(slots) != 1 {
		t.Errorf("the server sees the clients %v, expected %d with one slot", seen, len(clients))
	}
	for ended := range conns {
		for i, conn := range conns[ended:] {
			sent := fmt.Sprintf("%d of %d", ended+i, ended)
			back := make([]byte, len(sent))
			_, err := conn.Write([]byte(sent))
			nettest.Must(t, err)
			if _, err := io.ReadFull(conn, back); err != nil || string(back) != sent {
				t.Fatalf("after %d connections were reset, %s sends %q and gets %q: %v", ended, clients[ended+i].App, sent, back, err)
			}
		}
		nettest.Must(t, conns[ended].SetLinger(0))
		nettest.Must(t, conns[ended].Close())
	}
}

// oneWay lets nothing of the mesh come from one host to another, while all else does, the
// store's connections too. Neither is lost, so nothing leaves the names; both say that they
// do not reach the other, and only each other.
func (f *three) oneWay(ctx context.Context, t *testing.T) {
	iad, ord, fra := f.Hosts[0], f.Hosts[1], f.Hosts[2]
	reach(ctx, t, f.client, f.ord.Addr)
	nettest.Must(t, ord.Uplink.CutUDPTo(iad.Uplink))
	for _, row := range []struct {
		asked, of *nettest.Host
		silent    bool
	}{{iad, ord, true}, {ord, iad, true}, {iad, fra, false}, {ord, fra, false}, {fra, iad, false}, {fra, ord, false}} {
		nettest.Must(t, nettest.Eventually(ctx, "loss is said of a tunnel that works one way, and of no other", func(ctx context.Context) error {
			answer, err := row.asked.Client.GetHostWithResponse(ctx, row.of.Name, &api.GetHostParams{})
			if err := api.Check(answer, err); err != nil {
				return err
			}
			h := answer.JSON200
			if h.State != api.HostStatePresent {
				return nettest.Final(fmt.Errorf("a host with a lease is %s", h.State))
			}
			if h.Loss == nil || row.silent != (*h.Loss > 0.9) {
				return fmt.Errorf("%s says of %s: %+v", row.asked.Name, row.of.Name, h)
			}
			return nil
		}))
	}
	miss(ctx, t, f.client, f.ord.Addr)
	reach(ctx, t, f.client, f.fra.Addr)
	reach(ctx, t, f.fra, f.ord.Addr)
	want := []string{f.ord.Addr.String(), f.fra.Addr.String()}
	slices.Sort(want)
	for _, asker := range []*nettest.Machine{f.client, f.ord, f.fra} {
		got := resolve(ctx, t, asker, "web.internal")
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s asks for web.internal and gets %q, expected %q", asker.App, got, want)
		}
	}
	nettest.Must(t, ord.Uplink.Heal())
	nettest.Must(t, nettest.Eventually(ctx, "the tunnel works again", func(ctx context.Context) error {
		got, err := nettest.Probe[payload.Datagrams](ctx, f.client, "ping", "-timeout", "200ms", f.ord.Addr.String())
		if err == nil && got.Received == 0 {
			err = errors.New("no answer")
		}
		return err
	}))
	reach(ctx, t, f.client, f.ord.Addr)
}
