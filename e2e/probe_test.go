package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// vips are the addresses that were ever allocated, as far as that is known.
type vips struct {
	mu  sync.Mutex
	all []netip.Addr
}

func (v *vips) add(a netip.Addr) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = append(v.all, a)
}

func (v *vips) pick(random *rand.Rand) netip.Addr {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.all[random.IntN(len(v.all))]
}

const (
	mostHeld  = 40
	dialLimit = 300 * time.Millisecond
)

// prober makes flows from the namespaces of the clients.
type prober struct {
	*world
	random *rand.Rand
	inside [2]*netns.Namespace
	held   []net.Conn // stay open until the test ends, so that there are flows to count
}

func newProber(t *testing.T, w *world, random *rand.Rand) *prober {
	t.Helper()
	p := &prober{world: w, random: random}
	for i, client := range w.clients {
		p.inside[i] = nettest.Get[*netns.Namespace](t)(client.Namespace())
		t.Cleanup(func() { p.inside[i].Close() })
	}
	t.Cleanup(func() {
		for _, conn := range p.held {
			conn.Close()
		}
	})
	return p
}

// work connects to all addresses until ending. Most lead nowhere, some find a backend
// that soon goes. None may ever reach an address of another network.
func (p *prober) work(ctx, ending context.Context) error {
	for ending.Err() == nil {
		pass(ending, moment(p.random, 50*time.Millisecond))
		if err := p.try(ctx, p.random.IntN(len(p.inside)), p.vips.pick(p.random)); err != nil {
			return err
		}
		if len(p.held) > mostHeld {
			i := p.random.IntN(len(p.held))
			p.held[i].Close()
			p.held = slices.Delete(p.held, i, i+1)
		}
	}
	return nil
}

// all connects from each client to each address, some times.
func (p *prober) all(ctx context.Context) error {
	for _, target := range p.vips.all {
		for range 4 {
			for from := range p.inside {
				if err := p.try(ctx, from, target); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *prober) try(ctx context.Context, from int, target netip.Addr) error {
	conn, err := p.connect(ctx, p.inside[from], target)
	if err != nil {
		return ctx.Err() // it may well have nobody behind it
	}
	p.held = append(p.held, conn)
	if a, b := networkOf(target), networkOf(p.clients[from].Addr); a != b {
		return fmt.Errorf("a client of network %s reached %s of network %s", b, target, a)
	}
	return nil
}

// connect returns a connection that was greeted, or sends a datagram and is
// answered.
func (p *prober) connect(ctx context.Context, n *netns.Namespace, target netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	network, port := "tcp6", uint16(vipPort)
	if p.random.IntN(2) == 0 {
		network, port = "udp6", uint16(udpPort+p.random.IntN(2))
	}
	conn, err := n.Dial(ctx, network, nil, netip.AddrPortFrom(target, port).String())
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(dialLimit))
	_, err = conn.Write([]byte("probe"))
	if err == nil {
		_, err = conn.Read(make([]byte, 64))
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func networkOf(a netip.Addr) sixpn.Network {
	fields, _ := sixpn.Parse(a)
	return fields.Network
}
