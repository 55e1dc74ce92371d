package dns

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

// ParseUpstream reads the address of an upstream resolver, with a port or for port
// 53. An address of fdaa::/16 is refused: behind it is this resolver, or a tenant.
func ParseUpstream(text string) (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(text)
	if err != nil {
		alone, err := netip.ParseAddr(text)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("upstream resolver %q: expected an IP address, or one with a port, such as 192.0.2.1:53 or [2001:db8::1]:53", text)
		}
		address = netip.AddrPortFrom(alone, 53)
	}
	address = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	switch {
	case address.Port() == 0:
		return netip.AddrPort{}, fmt.Errorf("upstream resolver %q: port 0 is none, expected 1 to 65535", text)
	case sixpn.Prefix.Contains(address.Addr().WithZone("")):
		return netip.AddrPort{}, fmt.Errorf("upstream resolver %q is an address of a private network: expected a resolver of the host", text)
	}
	return address, nil
}

// upstreams are the resolvers to ask, and how they are.
type upstreams struct {
	ctx      context.Context // of the probes
	config   Forward
	observer Observer
	log      *slog.Logger

	mu      sync.Mutex
	all     []*upstream
	checked time.Time            // when the resolvers of the host were last read
	lastErr string               // why they could not be read
	probes  map[string]*upstream // names on their way, in canonical form

	tasks background
}

// background is goroutines that end before what they use does.
type background struct {
	mu    sync.Mutex
	ended bool
	group sync.WaitGroup
}

// start runs a task, unless all have been told to end.
func (b *background) start(task func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.group.Go(task)
	}
}

// wait lets no more begin, and returns when all have ended.
func (b *background) wait() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.group.Wait()
}

func newUpstreams(ctx context.Context, config Forward, observer Observer, log *slog.Logger) *upstreams {
	return &upstreams{ctx: ctx, config: config, observer: observer, log: log, probes: make(map[string]*upstream)}
}

// inOrder is the upstreams to ask now, the best first. Those that seem dead are
// asked only if all do; one that asks us back never is.
func (u *upstreams) inOrder() ([]*upstream, *failure) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refresh()
	var good, dead []*upstream
	for _, one := range u.all {
		switch one.state() {
		case up:
			good = append(good, one)
		case down:
			dead = append(dead, one)
		}
	}
	switch {
	case len(good) > 0:
		return good, nil
	case len(dead) > 0:
		return dead, nil
	case len(u.all) > 0:
		return nil, errLoop
	}
	return nil, errNoUpstream
}

// refresh looks which resolvers are to be asked, if that was long ago. The caller
// holds the lock.
func (u *upstreams) refresh() {
	if !u.checked.IsZero() && (len(u.config.Upstreams) > 0 || time.Since(u.checked) < u.config.CheckInterval) {
		return
	}
	u.checked = time.Now()
	wanted := u.config.Upstreams
	if len(wanted) == 0 {
		host, err := miekg.ClientConfigFromFile(u.config.ResolvConf)
		if err != nil {
			// Perhaps it is being written: the ones that were known go on.
			u.complain(fmt.Sprintf("read %s: %v", u.config.ResolvConf, err))
			return
		}
		for _, server := range host.Servers {
			wanted = append(wanted, net.JoinHostPort(server, host.Port))
		}
	}
	u.set(wanted)
}

// complain logs a state of the configuration once.
func (u *upstreams) complain(what string) {
	if what != "" && what != u.lastErr {
		u.log.Warn("upstream resolvers", "problem", what)
	}
	u.lastErr = what
}

// set makes these the upstreams. Those that stay keep what is known of them.
func (u *upstreams) set(wanted []string) {
	var all []*upstream
	var problem string
	for _, text := range wanted {
		address, err := ParseUpstream(text)
		if err != nil {
			problem = err.Error()
			continue
		}
		same := func(one *upstream) bool { return one.address == address.String() }
		if slices.ContainsFunc(all, same) {
			continue
		}
		if known := slices.IndexFunc(u.all, same); known >= 0 {
			all = append(all, u.all[known])
			continue
		}
		all = append(all, u.add(address.String()))
	}
	for _, one := range u.all {
		if !slices.Contains(all, one) {
			one.cancel()
			u.log.Info("an upstream resolver is asked no more", "upstream", one.address)
			if u.observer != nil {
				u.observer.Forgotten(one.address)
			}
		}
	}
	u.all = all
	u.complain(problem)
}

func (u *upstreams) add(address string) *upstream {
	one := &upstream{of: u, address: address}
	one.ctx, one.cancel = context.WithCancel(u.ctx)
	u.log.Info("an upstream resolver is asked from now on", "upstream", address)
	if u.observer != nil {
		u.observer.Health(address, true)
	}
	// Whether it asks us back is known after one question.
	u.tasks.start(one.probe)
	return one
}

// probePrefix is how the names begin that find out whether an upstream works, and
// whether the question comes back to us.
const probePrefix = "sixpn-probe-"

// probeName is a name that nobody has asked before, so that no cache on the way
// answers it.
func (u *upstreams) probeName(of *upstream) (name string, forget func()) {
	name = probePrefix + strings.ToLower(rand.Text()) + "."
	u.mu.Lock()
	defer u.mu.Unlock()
	u.probes[name] = of
	return name, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.probes, name)
	}
}

// returned says whether a question is a probe of ours that came back, and takes
// the upstream that it was put to out of use.
func (u *upstreams) returned(name string) bool {
	if len(name) < len(probePrefix) || !strings.EqualFold(name[:len(probePrefix)], probePrefix) {
		return false
	}
	u.mu.Lock()
	of, ok := u.probes[miekg.CanonicalName(name)]
	u.mu.Unlock()
	if ok {
		of.loops()
	}
	return ok
}
