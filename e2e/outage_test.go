package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// outage is how long most of the store is away.
const outage = 20 * time.Second

// writer gives orders to all hosts in turn, and remembers what was acknowledged.
type writer struct {
	hosts        []*nettest.Host
	acknowledged []string
}

func (w *writer) work(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		app := fmt.Sprintf("written-%d", i)
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		if err := w.hosts[i%len(w.hosts)].CreateApp(limited, app, "acme"); err == nil {
			w.acknowledged = append(w.acknowledged, app)
		}
		cancel()
		pass(ctx, 50*time.Millisecond)
	}
}

// resolver asks for one name as a Machine's C library does: two attempts of five seconds.
type resolver struct {
	inside *netns.Namespace
	name   string
	want   string
	failed error
	asked  int
}

func (r *resolver) work(ctx context.Context) {
	for ctx.Err() == nil && r.failed == nil {
		if err := r.ask(); err != nil {
			if again := r.ask(); again != nil {
				r.failed = errors.Join(err, again)
			}
		}
		r.asked++
		pass(ctx, 20*time.Millisecond)
	}
}

func (r *resolver) ask() error {
	// One that has begun is brought to its end.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := r.inside.Dial(ctx, "udp6", nil, "[fdaa::3]:53")
	if err != nil {
		return err
	}
	defer conn.Close()
	reply, _, err := (&dns.Client{Timeout: 5 * time.Second}).ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(r.name, dns.TypeAAAA), &dns.Conn{Conn: conn})
	if err != nil {
		return err
	}
	if len(reply.Answer) == 1 {
		if record, ok := reply.Answer[0].(*dns.AAAA); ok && record.AAAA.String() == r.want {
			return nil
		}
	}
	return fmt.Errorf("%s is %s %v, expected %s", r.name, dns.RcodeToString[reply.Rcode], reply.Answer, r.want)
}

// TestFleetOutages: three hosts have the store. Each agent in turn is killed, each host
// in turn is cut off, then two agents are away at once. No write that was acknowledged is
// lost, what stays on one host loses no packet, and no name fails.
func TestFleetOutages(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "fra", "ams"},
		Host:    nettest.Config{AgentFlags: []string{"--members-interval", "300ms"}},
	})
	awaitVoters(ctx, t, f)
	nettest.Must(t, f.Hosts[0].CreateOrg(ctx, "acme"))
	nettest.Must(t, f.Hosts[0].CreateApp(ctx, "servers", "acme"))
	working, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	var traffic []*nettest.Machine
	var resolvers []*resolver
	for _, h := range f.Hosts {
		m := nettest.Get[*nettest.Machine](t)(h.Run(ctx, "servers", nettest.Options{}, h.Payload(serve...)...))
		traffic = append(traffic, nettest.Get[*nettest.Machine](t)(h.Run(ctx, "servers", nettest.Options{Hidden: true, Linger: 20 * time.Second}, h.Payload("traffic",
			"-rate", "200", "-speed", "131072", "-numbered", "own="+on(m.Addr, udpPort), "-stream", "own="+on(m.Addr, tcpPort))...)))
		r := &resolver{inside: nettest.Get[*netns.Namespace](t)(m.Namespace()), name: m.ID + ".vm.servers.internal.", want: m.Addr.String()}
		defer r.inside.Close()
		resolvers = append(resolvers, r)
		group.Go(func() { r.work(working) })
	}
	w := &writer{hosts: f.Hosts}
	group.Go(func() { w.work(working) })

	for _, h := range f.Hosts {
		nettest.Must(t, h.KillAgent())
		pass(ctx, 500*time.Millisecond)
		nettest.Must(t, h.StartAgent(ctx))
	}
	for _, h := range f.Hosts {
		nettest.Must(t, h.Uplink.Cut())
		pass(ctx, 4*time.Second)
		nettest.Must(t, h.Uplink.Heal())
	}
	for _, h := range f.Hosts[:2] {
		nettest.Must(t, h.Uplink.Cut())
	}
	pass(ctx, outage)
	for _, h := range f.Hosts[:2] {
		nettest.Must(t, h.Uplink.Heal())
	}
	again := 0
	nettest.Must(t, nettest.Eventually(ctx, "each host takes orders again", func(ctx context.Context) error {
		for _, h := range f.Hosts {
			limited, cancel := context.WithTimeout(ctx, 3*time.Second)
			again++ // another name each time: an answer may be lost
			err := h.CreateApp(limited, fmt.Sprintf("after-%d", again), "acme")
			if cancel(); err != nil {
				return err
			}
		}
		return nil
	}))
	stop()
	group.Wait()
	for i, r := range resolvers {
		if r.failed != nil || r.asked == 0 {
			t.Errorf("on host %d, of %d questions one had no answer: %v", i, r.asked, r.failed)
		}
	}
	if len(w.acknowledged) == 0 {
		t.Error("nothing was acknowledged: nothing was tested")
	}
	for _, h := range f.Hosts {
		for _, app := range w.acknowledged {
			nettest.Must(t, nettest.Eventually(ctx, "a host knows "+app, func(ctx context.Context) error {
				return api.Check(h.Client.GetAppWithResponse(ctx, app))
			}))
		}
	}
	t.Logf("%d writes were acknowledged", len(w.acknowledged))
	for _, m := range traffic {
		nettest.EndTraffic(ctx, t, m)
	}
}
