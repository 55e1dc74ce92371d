package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// owners is whose addresses are: an app's, or a Machine's.
type owners struct {
	mu   sync.Mutex
	of   map[netip.Addr]string
	apps map[string]string // by Machine
}

func (o *owners) put(a netip.Addr, owner string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.of[a] = owner
}

// know notes a Machine, and that it has an address.
func (w *world) know(m *machineFact) {
	w.owners.mu.Lock()
	defer w.owners.mu.Unlock()
	w.owners.apps[m.id] = m.app
	if w.owners.of[m.addr] != m.id {
		w.owners.of[m.addr] = m.id
		w.addrs.add(m.addr)
	}
}

// may says whether a Machine can answer at an address. No address is ever another's.
func (o *owners) may(id string, a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	app, known := o.apps[id]
	return !known || o.of[a] == id || o.of[a] == app
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
	limit  time.Duration // that an answer may take; longer ones count as none
	held   []net.Conn    // stay open until the test ends, so that there are flows to count
}

func newProber(t *testing.T, w *world, random *rand.Rand) *prober {
	t.Helper()
	p := &prober{world: w, random: random, limit: dialLimit}
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
		targets := pick(p.random, []*list[netip.Addr]{&p.vips, &p.addrs})
		if err := p.try(ctx, p.random.IntN(len(p.inside)), targets.pick(p.random), p.random.IntN(2) == 0); err != nil {
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

// all connects from each client to each address, some times; last to one that
// answers, so that there are young flows at the end, whatever became of the others.
func (p *prober) all(ctx context.Context) error {
	for _, target := range slices.Backward(p.vips.all) {
		for range 2 {
			for from := range p.inside {
				for _, datagrams := range []bool{false, true} {
					if err := p.try(ctx, from, target, datagrams); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// try connects, or sends a datagram.
func (p *prober) try(ctx context.Context, from int, target netip.Addr, datagram bool) error {
	conn, who, err := p.connect(ctx, p.inside[from], target, datagram)
	if err != nil {
		return ctx.Err() // it may well have nobody behind it
	}
	p.held = append(p.held, conn)
	if a, b := networkOf(target), networkOf(p.clients[from].Addr); a != b {
		return fmt.Errorf("a client of network %s reached %s of network %s", b, target, a)
	}
	if !p.owners.may(who, target) {
		return fmt.Errorf("at %s, which is of %s, machine %s answered", target, p.owners.of[target], who)
	}
	return nil
}

// connect returns a connection that was greeted, or a socket whose datagram was
// answered, and by which Machine.
func (p *prober) connect(ctx context.Context, n *netns.Namespace, target netip.Addr, datagram bool) (conn net.Conn, who string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	network, port := "tcp6", uint16(vipPort)
	kind, _ := sixpn.Classify(target)
	switch {
	case datagram:
		network, port = "udp6", uint16(udpPort)
		if kind == sixpn.KindVIP {
			port += uint16(p.random.IntN(2))
		}
	case kind != sixpn.KindVIP:
		port = tcpPort
	}
	if conn, err = n.Dial(ctx, network, nil, netip.AddrPortFrom(target, port).String()); err != nil {
		return nil, "", err
	}
	_ = conn.SetDeadline(time.Now().Add(p.limit))
	greeting := make([]byte, 64)
	length := 0
	if _, err = conn.Write([]byte("probe")); err == nil {
		length, err = conn.Read(greeting)
	}
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	who, _, _ = strings.Cut(string(greeting[:length]), " ")
	return conn, who, nil
}

func networkOf(a netip.Addr) sixpn.Network {
	fields, _ := sixpn.Parse(a)
	return fields.Network
}
