package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// burden is what hosts have to do while something is done to them: they take orders,
// answer for a name, and carry what stays on each of them.
type burden struct {
	hosts  []*nettest.Host
	each   []*carried // in the order of hosts
	writer *writer
	stop   func()
	group  sync.WaitGroup
}

// carried is what of a burden one host has.
type carried struct {
	host     *nettest.Host
	resolver *resolver
	traffic  *nettest.Machine
	leaver   *nettest.Machine // is stopped and started again
}

// begin makes the burden of hosts that know each other.
func begin(ctx context.Context, t *testing.T, hosts []*nettest.Host) *burden {
	t.Helper()
	working, stop := context.WithCancel(ctx)
	b := &burden{hosts: hosts, writer: &writer{hosts: hosts}, stop: stop}
	t.Cleanup(func() {
		stop()
		b.group.Wait()
		for _, c := range b.each {
			c.resolver.inside.Close()
		}
	})
	nettest.Must(t, hosts[0].CreateOrg(ctx, "acme"))
	nettest.Must(t, hosts[0].CreateApp(ctx, "servers", "acme"))
	for _, h := range hosts {
		nettest.Must(t, nettest.Eventually(ctx, h.Name+" knows the app", func(ctx context.Context) error {
			return api.Check(h.Client.GetAppWithResponse(ctx, "servers"))
		}))
		m := nettest.Get[*nettest.Machine](t)(h.Run(ctx, "servers", nettest.Options{}, h.Payload(serve...)...))
		c := &carried{host: h, resolver: &resolver{inside: nettest.Get[*netns.Namespace](t)(m.Namespace()), name: nameOf(m), want: m.Addr.String()}}
		b.each = append(b.each, c)
		c.traffic = nettest.Get[*nettest.Machine](t)(h.Run(ctx, "servers", nettest.Options{Hidden: true, Linger: 20 * time.Second}, h.Payload("traffic",
			"-rate", "200", "-speed", "131072", "-numbered", "own="+on(m.Addr, udpPort), "-stream", "own="+on(m.Addr, tcpPort))...))
		c.leaver = nettest.Get[*nettest.Machine](t)(h.Run(ctx, "servers", nettest.Options{}, h.Payload("idle")...))
		b.group.Go(func() { c.resolver.work(working) })
	}
	b.group.Go(func() { b.writer.work(working) })
	return b
}

func nameOf(m *nettest.Machine) string { return m.ID + ".vm." + m.App + ".internal." }

// others is all but one.
func others[T any](all []T, but int) []T { return slices.Delete(slices.Clone(all), but, but+1) }

// withdraw stops a Machine of the first of hosts that have the store: no answer of any of
// them may have it a second after that was acknowledged. What it returns starts it again.
func withdraw(ctx context.Context, t *testing.T, having ...*carried) (again func()) {
	t.Helper()
	m := having[0].leaver
	hold := func(count int) error {
		return nettest.Eventually(ctx, fmt.Sprintf("%d answers of each host have a Machine", count), func(context.Context) error {
			for _, c := range having {
				reply, err := c.resolver.exchange(nameOf(m))
				if err == nil && len(reply.Answer) != count {
					err = fmt.Errorf("%s answers %s %v", c.host.Name, dns.RcodeToString[reply.Rcode], reply.Answer)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	nettest.Must(t, hold(1))
	// What has just lost its leader takes no orders until it has the next one.
	order := func(what string, give func(context.Context) error) {
		t.Helper()
		nettest.Must(t, nettest.Eventually(ctx, "a Machine is to "+what, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return give(ctx)
		}))
	}
	order("stop", m.Stop)
	began := time.Now()
	nettest.Must(t, hold(0))
	if took := time.Since(began); took > nettest.Slow(withdrawnElsewhere) {
		t.Errorf("a Machine that was stopped on %s was in an answer of a host that has the store for %v, expected %v at most", having[0].host.Name, took, withdrawnElsewhere)
	}
	return func() {
		t.Helper()
		nettest.Must(t, m.Wait(ctx, "stopped"))
		order("start", m.Start)
		nettest.Must(t, hold(1))
	}
}

// end waits until all hosts take orders again, and looks what was lost.
func (b *burden) end(ctx context.Context, t *testing.T) {
	t.Helper()
	again := 0
	nettest.Must(t, nettest.Eventually(ctx, "each host takes orders again", func(ctx context.Context) error {
		for _, h := range b.hosts {
			limited, cancel := context.WithTimeout(ctx, 3*time.Second)
			again++ // another name each time: an answer may be lost
			err := h.CreateApp(limited, fmt.Sprintf("after-%d", again), "acme")
			if cancel(); err != nil {
				return err
			}
		}
		return nil
	}))
	for i := range b.each {
		withdraw(ctx, t, append(b.each[i:i+1:i+1], others(b.each, i)...)...)()
	}
	b.stop()
	b.group.Wait()
	for _, c := range b.each {
		if r := c.resolver; r.failed != nil || r.asked == 0 {
			t.Errorf("on %s, of %d questions one had no answer: %v", c.host.Name, r.asked, r.failed)
		}
	}
	if len(b.writer.acknowledged) == 0 {
		t.Error("nothing was acknowledged: nothing was tested")
	}
	for _, h := range b.hosts {
		for _, app := range b.writer.acknowledged {
			nettest.Must(t, nettest.Eventually(ctx, h.Name+" knows "+app, func(ctx context.Context) error {
				return api.Check(h.Client.GetAppWithResponse(ctx, app))
			}))
		}
	}
	t.Logf("%d writes were acknowledged", len(b.writer.acknowledged))
	for _, c := range b.each {
		nettest.EndTraffic(ctx, t, c.traffic)
	}
}

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

// attemptTime is resolv.conf's usual timeout, for an agent that is as fast as users have it.
const attemptTime = nettest.RaceSlowness * 5 * time.Second

// resolver asks for one name as a Machine's C library does: two attempts of attemptTime.
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
	reply, err := r.exchange(r.name)
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

// exchange is one attempt. One that has begun is brought to its end.
func (r *resolver) exchange(name string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Slow(attemptTime))
	defer cancel()
	conn, err := r.inside.Dial(ctx, "udp6", nil, "[fdaa::3]:53")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply, _, err := (&dns.Client{Timeout: nettest.Slow(attemptTime)}).ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeAAAA), &dns.Conn{Conn: conn})
	return reply, err
}
