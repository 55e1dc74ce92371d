package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// withdrawn is how long after the acknowledgement of a stop an answer may still name
// the Machine.
const withdrawn = 200 * time.Millisecond

// quiet is the addresses that nobody may be told, since when.
type quiet struct {
	mu    sync.Mutex
	since map[netip.Addr]time.Time
}

func (q *quiet) add(a netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.since[a]; !ok && a.IsValid() {
		q.since[a] = time.Now()
	}
}

func (q *quiet) remove(a netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.since, a)
}

// at is since when an address is quiet, false if it is not.
func (q *quiet) at(a netip.Addr) (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	since, ok := q.since[a]
	return since, ok
}

// list is a list that many fill and one picks from.
type list[T any] struct {
	mu  sync.Mutex
	all []T
}

func (l *list[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, v)
}

func (l *list[T]) pick(random *rand.Rand) T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[random.IntN(len(l.all))]
}

// asker asks the resolver from inside the clients.
type asker struct {
	*prober
	random                      *rand.Rand
	answered, addresses, denied int
}

// work asks until ending. No answer may name what is of another network, or was
// stopped.
func (a *asker) work(ctx, ending context.Context) error {
	for ending.Err() == nil {
		pass(ending, moment(a.random, 20*time.Millisecond))
		from := a.random.IntN(len(a.inside))
		zone := pick(a.random, []string{"internal.", "internal.", "flycast."})
		if err := a.ask(ctx, from, a.names.pick(a.random)+"."+zone); err != nil {
			return err
		}
	}
	return nil
}

func (a *asker) ask(ctx context.Context, from int, name string) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := a.inside[from].Dial(ctx, "udp6", nil, "[fdaa::3]:53")
	if err != nil {
		return nil
	}
	defer conn.Close()
	asked := time.Now()
	client := &dns.Client{Timeout: dialLimit}
	reply, _, err := client.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeAAAA), &dns.Conn{Conn: conn})
	if err != nil {
		return nil // there is no agent just now
	}
	a.answered++
	if reply.Rcode == dns.RcodeNameError {
		a.denied++
	} else if reply.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("the question for %s got %s", name, dns.RcodeToString[reply.Rcode])
	}
	own := networkOf(a.clients[from].Addr)
	for _, rr := range reply.Answer {
		record, ok := rr.(*dns.AAAA)
		if !ok {
			return fmt.Errorf("the question for %s got %v", name, rr)
		}
		addr, _ := netip.AddrFromSlice(record.AAAA)
		a.addresses++
		if networkOf(addr) != own {
			return fmt.Errorf("a client of network %s that asked for %s was told %s of network %s", own, name, addr, networkOf(addr))
		}
		if since, ok := a.quiet.at(addr); ok && since.Before(asked.Add(-withdrawn)) {
			return fmt.Errorf("the question for %s got %s, which was stopped %v before", name, addr, asked.Sub(since))
		}
	}
	return nil
}
