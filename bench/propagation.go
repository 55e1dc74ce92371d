package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	miekg "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

const (
	// lookPause is between two looks, so that looking does not take the processor time
	// that is to be measured.
	lookPause = 250 * time.Microsecond
	// changePause is the most that passes before the next change. It is chosen at random:
	// no period of an agent is met at the same phase again and again.
	changePause = 10 * time.Millisecond
	// changeTimeout is how long one change may take to arrive.
	changeTimeout = 10 * time.Second
)

// propagated is one change: how long after the request was sent it was answered, and
// how long after that it was seen on the other host.
type propagated struct {
	answered, name, table time.Duration
	looks                 time.Duration // between the last looks
}

// measurePropagation has a Flycast address made and released again and again by the API
// of one host of three, and looks on another when the name leads to it, and when the
// kernel's table has it. Each has a member of the store: a change is durable on two of
// them before anybody hears of it.
func measurePropagation(ctx context.Context, changes int, progress func(string)) (results []Result, err error) {
	f, err := newFleet(ctx, 3, progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.voters(ctx, 3); err != nil {
		return nil, err
	}
	writer := f.Hosts[1].Client
	w, err := newWatcher(ctx, f, f.Hosts[2])
	if err != nil {
		return nil, err
	}
	defer w.close()

	var seen []propagated
	var address string
	// The first changes are thrown away: connections are made and caches filled by them.
	const thrown = 10
	for i := range thrown + changes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		progress(fmt.Sprintf("propagation %d of %d", max(0, i-thrown)+1, changes))
		time.Sleep(rand.N(changePause))
		made := i%2 == 0
		p, err := w.measure(made, func() error {
			if !made {
				answer, err := writer.DeleteIPAssignmentWithResponse(ctx, watchedApp, address, &api.DeleteIPAssignmentParams{})
				return api.Check(answer, err)
			}
			answer, err := writer.CreateIPAssignmentWithResponse(ctx, watchedApp, &api.CreateIPAssignmentParams{}, api.CreateIPAssignmentRequest{Type: "private_v6"})
			if err := api.Check(answer, err); err != nil {
				return err
			}
			address = answer.JSON200.IP
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		if i >= thrown {
			seen = append(seen, p)
		}
	}
	return propagationResults(seen), nil
}

// propagationResults takes quantiles over all changes. The baseline is the time in which
// the writer had its answer, which it has when the change is durable.
func propagationResults(seen []propagated) []Result {
	collect := func(of func(propagated) time.Duration) (values []float64) {
		for _, p := range seen {
			values = append(values, of(p).Seconds()*1e3)
		}
		return values
	}
	answered := collect(func(p propagated) time.Duration { return p.answered })
	result := func(name string, q float64, of func(propagated) time.Duration) Result {
		r := newResult(name, "ms", "durable", collect(of), answered)
		r.Value, r.Baseline = quantile(r.values, q), quantile(answered, q)
		r.Ratio, r.Low, r.High = r.Value/r.Baseline, 0, 0
		r.Resolution = quantile(collect(func(p propagated) time.Duration { return p.looks }), 0.5)
		return r
	}
	both := func(p propagated) time.Duration { return max(p.name, p.table) }
	name := func(p propagated) time.Duration { return p.name }
	table := func(p propagated) time.Duration { return p.table }
	return []Result{
		result("control.propagation_p50", 0.5, both), result("control.propagation_p99", 0.99, both),
		result("control.propagation_name_p50", 0.5, name), result("control.propagation_name_p99", 0.99, name),
		result("control.propagation_table_p50", 0.5, table), result("control.propagation_table_p99", 0.99, table),
	}
}

const watchedApp = "watched"

// watcher looks at one host: by a socket inside a Machine, and at the kernel's table.
type watcher struct {
	machine *nettest.Machine
	socket  *net.UDPConn
	vips    *ebpf.Map // holds the only address that there may be, or nothing
	query   []byte
}

func newWatcher(ctx context.Context, f fleet, at *nettest.Host) (w *watcher, err error) {
	w = &watcher{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	first := f.Hosts[0]
	if err := first.CreateOrg(ctx, "bench"); err != nil {
		return w, err
	}
	if err := first.CreateApp(ctx, watchedApp, "bench"); err != nil {
		return w, err
	}
	services := nettest.Options{Services: []string{"80:8080/tcp"}}
	if _, err := first.Run(ctx, watchedApp, services, first.Payload("idle")...); err != nil {
		return w, err
	}
	if err := f.Settle(ctx); err != nil {
		return w, err
	}
	if w.machine, err = at.Run(ctx, watchedApp, nettest.Options{}, at.Payload("idle")...); err != nil {
		return w, err
	}
	if err := f.Settle(ctx); err != nil {
		return w, err
	}
	paths, err := filepath.Glob(filepath.Join(at.PinDir(), "v*", "vips"))
	if err != nil || len(paths) != 1 {
		return w, fmt.Errorf("the pin of one table of addresses was expected below %s, found %q: %w", at.PinDir(), paths, err)
	}
	if w.vips, err = ebpf.LoadPinnedMap(paths[0], &ebpf.LoadPinOptions{ReadOnly: true}); err != nil {
		return w, err
	}
	namespace, err := w.machine.Namespace()
	if err != nil {
		return w, err
	}
	defer namespace.Close()
	err = namespace.Do(func() error {
		w.socket, err = net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(sixpn.DNS, dnsPort)))
		return err
	})
	if err != nil {
		return w, err
	}
	w.query, err = new(miekg.Msg).SetQuestion(watchedApp+".flycast.", miekg.TypeAAAA).Pack()
	return w, err
}

func (w *watcher) close() {
	if w.socket != nil {
		w.socket.Close()
	}
	if w.vips != nil {
		w.vips.Close()
	}
}

// measure makes a change, and returns when it was seen both ways.
func (w *watcher) measure(there bool, change func() error) (p propagated, err error) {
	begin := time.Now()
	var answered time.Duration
	changed := make(chan error, 1)
	go func() {
		err := change()
		answered = time.Since(begin)
		changed <- err
	}()
	err = w.watch(there, begin, &p)
	err = errors.Join(<-changed, err)
	p.answered = answered
	return p, err
}

// watch looks again and again. A time is that after the look, so that no change is seen
// before it happened, and one is seen late by up to the time between two looks.
func (w *watcher) watch(there bool, begin time.Time, p *propagated) error {
	runtime.LockOSThread() // a pause is one of the kernel's, not of the Go scheduler
	defer runtime.UnlockOSThread()
	pause := unix.NsecToTimespec(lookPause.Nanoseconds())
	last := begin
	for p.name == 0 || p.table == 0 {
		if last.Sub(begin) > changeTimeout {
			return fmt.Errorf("after %v it is not on the other host (name %v, table %v)", changeTimeout, p.name, p.table)
		}
		if p.table == 0 {
			has, err := w.tableHas()
			if err != nil {
				return err
			}
			if has == there {
				p.table = time.Since(begin)
			}
		}
		if p.name == 0 {
			has, err := w.nameHas()
			if err != nil {
				return err
			}
			if has == there {
				p.name = time.Since(begin)
			}
		}
		now := time.Now()
		p.looks, last = now.Sub(last), now
		_ = unix.Nanosleep(&pause, nil) // an earlier look does no harm
	}
	return nil
}

func (w *watcher) tableHas() (bool, error) {
	err := w.vips.NextKey(nil, new([8]byte))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return err == nil, err
}

// nameHas asks the resolver once. The name is there or has no address.
func (w *watcher) nameHas() (bool, error) {
	w.query[1]++
	if _, err := w.socket.Write(w.query); err != nil {
		return false, err
	}
	reply := make([]byte, 4096)
	if err := w.socket.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false, err
	}
	n, err := w.socket.Read(reply)
	if err != nil {
		return false, fmt.Errorf("ask the resolver: %w", err)
	}
	rcode := reply[3] & 0x0f
	if n < 12 || reply[1] != w.query[1] || rcode != miekg.RcodeSuccess && rcode != miekg.RcodeNameError {
		return false, fmt.Errorf("an answer of %d bytes (% x …) is none to what was asked", n, reply[:min(n, 12)])
	}
	return reply[6]|reply[7] != 0, nil
}
