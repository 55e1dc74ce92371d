package dns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest"
)

const (
	churn = time.Minute // how long Machines start and stop
	lag   = 200 * time.Millisecond
)

// TestChurn starts and stops Machines while a Machine asks for them all the time:
// from lag after a stop was acknowledged no answer has that Machine, from lag after
// a start was every answer has it, and none is empty, for always one is started.
func TestChurn(t *testing.T) {
	ctx := nettest.Context(t)
	h := nettest.Start(ctx, t, nettest.Config{})
	nettest.Must(t, h.CreateOrg(ctx, "acme"))
	nettest.Must(t, h.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, h.CreateApp(ctx, "client", "acme"))
	client := nettest.Get[*nettest.Machine](t)(h.Run(ctx, "client", nettest.Options{}, h.Payload("idle")...))
	var machines []*nettest.Machine
	for range 4 {
		machines = append(machines, nettest.Get[*nettest.Machine](t)(h.Run(ctx, "web", nettest.Options{}, h.Payload("idle")...)))
	}
	truth := &ledger{since: make(map[netip.Addr]period)}
	for _, m := range machines {
		truth.begin(m.Addr, started)
	}

	ended, stop := context.WithTimeout(ctx, churn)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	// Two hand over to each other, so that always one is started; the others come
	// and go as they like.
	group.Go(func() error {
		for turn := 0; ended.Err() == nil; turn++ {
			leaving, coming := machines[turn%2], machines[(turn+1)%2]
			if turn > 0 {
				if err := truth.start(ctx, coming); err != nil {
					return err
				}
			}
			if err := truth.stop(ctx, leaving); err != nil {
				return err
			}
		}
		return nil
	})
	for _, m := range machines[2:] {
		group.Go(func() error {
			for ended.Err() == nil {
				if err := truth.stop(ctx, m); err != nil {
					return err
				}
				if err := truth.start(ctx, m); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var answers int
	group.Go(func() (err error) {
		answers, err = watch(ended, client, truth)
		return err
	})
	nettest.Must(t, group.Wait())
	t.Logf("%d answers during %d stops", answers, truth.stops)
	if answers < 1000 || truth.stops < 5 {
		t.Errorf("only %d answers during %d stops: nothing is shown", answers, truth.stops)
	}
}

// watch asks from inside a Machine until ctx ends, and returns how many answers
// there were.
func watch(ctx context.Context, from *nettest.Machine, truth *ledger) (answers int, err error) {
	namespace, err := from.Namespace()
	if err != nil {
		return 0, err
	}
	defer namespace.Close()
	conn, err := namespace.Dial(ctx, "udp6", nil, netip.AddrPortFrom(sixpn.DNS, 53).String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		asked := time.Now()
		found, err := ask(conn)
		if err != nil {
			return answers, err
		}
		if err := truth.compare(found, asked, time.Now()); err != nil {
			return answers, err
		}
		answers++
		<-pace.C
	}
	return answers, nil
}

func ask(conn net.Conn) (map[netip.Addr]bool, error) {
	client := &miekg.Conn{Conn: conn}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if err := client.WriteMsg(new(miekg.Msg).SetQuestion("web.internal.", miekg.TypeAAAA)); err != nil {
		return nil, err
	}
	reply, err := client.ReadMsg()
	if err != nil {
		return nil, err
	}
	if reply.Rcode != miekg.RcodeSuccess || len(reply.Answer) == 0 {
		return nil, fmt.Errorf("nobody is in the answer although one is started:\n%v", reply)
	}
	found := make(map[netip.Addr]bool)
	for _, rr := range reply.Answer {
		address, _ := netip.AddrFromSlice(rr.(*miekg.AAAA).AAAA)
		found[address] = true
	}
	return found, nil
}

// ledger is what was asked of Machines and acknowledged, and when.
type ledger struct {
	mu    sync.Mutex
	since map[netip.Addr]period
	stops int
}

type period struct {
	condition condition
	began     time.Time
}

type condition int

const (
	between condition = iota // asked to start or to stop, not yet acknowledged
	started
	stopped
)

func (l *ledger) begin(m netip.Addr, c condition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since[m] = period{c, time.Now()}
	if c == stopped {
		l.stops++
	}
}

func (l *ledger) stop(ctx context.Context, m *nettest.Machine) error {
	l.begin(m.Addr, between)
	if err := m.Stop(ctx); err != nil {
		return err
	}
	l.begin(m.Addr, stopped)
	return m.Wait(ctx, "stopped")
}

func (l *ledger) start(ctx context.Context, m *nettest.Machine) error {
	l.begin(m.Addr, between)
	if err := m.Start(ctx); err != nil {
		return err
	}
	if err := m.Wait(ctx, "started"); err != nil {
		return err
	}
	l.begin(m.Addr, started)
	return nil
}

// compare holds an answer that was asked for and came at these times against what
// was so all that while, and for lag before.
func (l *ledger) compare(found map[netip.Addr]bool, asked, came time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m, p := range l.since {
		if asked.Sub(p.began) < lag || came.Before(p.began) {
			continue
		}
		if p.condition == stopped && found[m] {
			return fmt.Errorf("%s is in an answer that was asked for %v after its stop was acknowledged", m, asked.Sub(p.began))
		}
		if p.condition == started && !found[m] {
			return fmt.Errorf("%s is in no answer %v after it was started", m, asked.Sub(p.began))
		}
	}
	return nil
}
