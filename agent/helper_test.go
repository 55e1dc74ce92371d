package agent_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

const (
	tcpPort = 8080
	udpPort = 9000
	vipPort = 80
)

var published = []string{"80:8080/tcp", "9000:9000/udp"}

// pair is a small world: a server with a VIP, and a client, of one org.
type pair struct {
	*nettest.Host
	server, client *nettest.Machine
	vip            netip.Addr
}

func newPair(ctx context.Context, t *testing.T, c nettest.Config) *pair {
	t.Helper()
	return newPairOn(ctx, t, nettest.Start(ctx, t, c))
}

func newPairOn(ctx context.Context, t *testing.T, h *nettest.Host) *pair {
	t.Helper()
	p := &pair{Host: h}
	nettest.Must(t, p.CreateOrg(ctx, "acme"))
	nettest.Must(t, p.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, p.CreateApp(ctx, "client", "acme"))
	p.server = p.run(ctx, t, "web", nettest.Options{Services: published}, serverArgs...)
	p.client = p.run(ctx, t, "client", nettest.Options{}, "idle")
	p.vip = nettest.Get[netip.Addr](t)(p.AllocateVIP(ctx, "web", ""))
	return p
}

var serverArgs = []string{"serve", "-tcp", "8080", "-udp", "9000", "-sockets", "8"}

func (p *pair) run(ctx context.Context, t *testing.T, app string, o nettest.Options, args ...string) *nettest.Machine {
	t.Helper()
	return nettest.Get[*nettest.Machine](t)(p.Host.Run(ctx, app, o, p.Payload(args...)...))
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// connects demands that connections from one Machine to an address all work, and
// returns who answered.
func connects(ctx context.Context, t *testing.T, from *nettest.Machine, address string) map[string]int {
	t.Helper()
	const count = 10
	got := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, from, "connect", "-count", fmt.Sprint(count), address))
	if got.OK != count {
		t.Errorf("to %s: %d of %d connections came through: %v", address, got.OK, count, got.Errors)
	}
	return got.Answers
}

// works demands that the client reaches the server plainly and by its VIP.
func (p *pair) works(ctx context.Context, t *testing.T) {
	t.Helper()
	connects(ctx, t, p.client, at(p.server.Addr, tcpPort))
	connects(ctx, t, p.client, at(p.vip, vipPort))
}

// answered asks an address from the client's namespace, without any agent, and
// counts the datagrams that were answered.
func (p *pair) answered(t *testing.T, address string, count int, limit time.Duration) (answers int) {
	t.Helper()
	namespace, err := p.client.Namespace()
	nettest.Must(t, err)
	defer namespace.Close()
	nettest.Must(t, namespace.Do(func() error {
		socket, err := net.Dial("udp6", address)
		if err != nil {
			return err
		}
		defer socket.Close()
		for range count {
			if _, err := socket.Write([]byte("probe")); err != nil {
				return err
			}
		}
		if err := socket.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		for buffer := make([]byte, 2048); answers < count; answers++ {
			if _, err := socket.Read(buffer); err != nil {
				return nil // the time is over
			}
		}
		return nil
	}))
	return answers
}

// startTraffic makes a Machine that sends, plain and through the VIP, until it is
// stopped.
func (p *pair) startTraffic(ctx context.Context, t *testing.T) *nettest.Machine {
	t.Helper()
	return p.run(ctx, t, "client", nettest.Options{Linger: 20 * time.Second}, "traffic", "-rate", "2000",
		"-numbered", "plain="+at(p.server.Addr, udpPort), "-numbered", "vip="+at(p.vip, udpPort),
		"-stream", "plain="+at(p.server.Addr, tcpPort), "-stream", "vip="+at(p.vip, vipPort),
		"-open", "plain="+at(p.server.Addr, tcpPort), "-open", "vip="+at(p.vip, vipPort))
}

// logged says whether the agent's log has a line with all these parts.
func logged(t *testing.T, h *nettest.Host, parts ...string) bool {
	t.Helper()
	content, err := os.ReadFile(h.LogPath())
	nettest.Must(t, err)
	for line := range strings.Lines(string(content)) {
		has := true
		for _, part := range parts {
			has = has && strings.Contains(line, part)
		}
		if has {
			return true
		}
	}
	return false
}
