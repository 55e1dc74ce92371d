package flycast_test

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/state"
)

// records is a store of Machines alone.
type records struct {
	mu       sync.Mutex
	moved    chan struct{}
	revision int64
	machines map[string]state.Machine
	writes   int
}

func newRecords(machines ...state.Machine) *records {
	r := &records{moved: make(chan struct{}), machines: map[string]state.Machine{}}
	for _, m := range machines {
		r.put(m)
	}
	return r
}

func (r *records) put(m state.Machine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(m)
}

func (r *records) set(m state.Machine) {
	r.revision++
	m.UpdatedAt = time.Now()
	r.machines[m.ID] = m
	close(r.moved)
	r.moved = make(chan struct{})
}

func (r *records) Wait(ctx context.Context, after int64) (*state.Snapshot, error) {
	for {
		r.mu.Lock()
		revision, moved := r.revision, r.moved
		snapshot := state.Snapshot{Revision: revision, Machines: maps.Clone(r.machines)}
		r.mu.Unlock()
		if revision > after {
			return state.Assemble(snapshot), nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *records) UpdateMachine(_ context.Context, id string, change func(*state.Machine) error) (state.Machine, int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.machines[id]
	if err := change(&m); err != nil {
		return m, 0, err
	}
	r.writes++
	r.set(m)
	return m, r.revision, nil
}

func (r *records) checks(id string) []state.CheckStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machines[id].Checks
}

func (r *records) written() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

const checkedID = "11111111111111"

func checked(checks ...state.Check) state.Machine {
	return state.Machine{
		ID: checkedID, App: "web", Network: 1, Host: 3, Number: 5, InstanceID: "a", Desired: state.Started, State: state.Started,
		Config: state.MachineConfig{Services: []state.Service{{Protocol: "tcp", InternalPort: 8080, Checks: checks}}},
	}
}

func newProber(t *testing.T, r *records, connect flycast.Connect, roots *x509.CertPool) *flycast.Prober {
	t.Helper()
	p, err := flycast.NewProber(flycast.ProberConfig{
		Host: 3, Store: r, Connect: connect, Roots: roots, Log: quiet, WriteInterval: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// toServer leads every connection to a server of the test.
func toServer(address string) flycast.Connect {
	return func(ctx context.Context, _ netip.Addr, _ netip.AddrPort) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
}

// until polls a condition while a prober runs, and ends that.
func until(t *testing.T, p *flycast.Prober, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case err := <-ended:
			t.Fatalf("waited in vain until %s (Run: %v)", what, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// switchable is a server that one can break. Its connections are those of the
// synctest bubble: they take no time.
type switchable struct {
	mu     sync.Mutex
	broken bool
	probes []time.Time
	from   map[netip.Addr]int
	most   int // connections that were under way at once
	now    int
	hang   bool
}

func (s *switchable) set(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

func (s *switchable) mostAtOnce() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

func (s *switchable) connect(ctx context.Context, local netip.Addr, _ netip.AddrPort) (net.Conn, error) {
	s.mu.Lock()
	s.probes = append(s.probes, time.Now())
	if s.from == nil {
		s.from = map[netip.Addr]int{}
	}
	s.from[local]++
	s.now++
	s.most = max(s.most, s.now)
	broken, hang := s.broken, s.hang
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.now--; s.mu.Unlock() }()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if broken {
		return nil, errors.New("connection refused")
	}
	a, b := net.Pipe()
	return a, b.Close()
}

// bubble runs a prober with a clock that only moves when everyone waits.
func bubble(t *testing.T, r func() *records, s *switchable, config flycast.ProberConfig, do func(r *records)) {
	t.Helper()
	// With the race detector, two threads that find timers of one bubble due at once
	// share a context of it that is made for one, and may crash in the runtime
	// (runtime/time.go, unlockAndRun).
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		store := r()
		config.Host, config.Store, config.Connect, config.Log = 3, store, s.connect, quiet
		p, err := flycast.NewProber(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		do(store)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// pass lets the bubble's time go on.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func status(r *records) string {
	c := r.checks(checkedID)
	if len(c) == 0 {
		return ""
	}
	return c[0].Status
}

func expectStatus(t *testing.T, r *records, when, want string) {
	t.Helper()
	if got := status(r); got != want {
		t.Errorf("%s the check is %q, expected %q", when, got, want)
	}
}

var every10s = state.Check{Type: "tcp", Interval: 10 * time.Second}

// TestCheckInterval: what fails is known within one interval; probes never come
// further apart, and not all at the same distance.
func TestCheckInterval(t *testing.T) {
	t.Parallel()
	s := &switchable{}
	bubble(t, func() *records { return newRecords(checked(every10s)) }, s, flycast.ProberConfig{}, func(r *records) {
		pass(0)
		expectStatus(t, r, "at once", state.CheckWarning)
		pass(time.Second)
		expectStatus(t, r, "after the first probe", state.CheckPassing)
		for range 10 {
			pass(10 * time.Second)
		}
		if n := r.written(); n != 2 {
			t.Errorf("%d writes while nothing changed, expected 2", n)
		}
		s.set(true)
		pass(10 * time.Second)
		expectStatus(t, r, "one interval after it broke", state.CheckCritical)
		s.set(false)
		pass(10 * time.Second)
		expectStatus(t, r, "one interval after it was mended", state.CheckPassing)
	})
	gaps := map[time.Duration]bool{}
	for i := range len(s.probes) - 1 {
		gap := s.probes[i+1].Sub(s.probes[i])
		gaps[gap] = true
		if gap > 10*time.Second || gap < 9*time.Second {
			t.Errorf("two probes are %v apart, expected 9 to 10 s", gap)
		}
	}
	if len(gaps) < 3 {
		t.Errorf("probes are apart %v: there is no jitter", gaps)
	}
	if want := sixpn.AgentAddr(1, 3); len(s.from) != 1 || s.from[want] == 0 {
		t.Errorf("probes came from %v, expected %s", s.from, want)
	}
}

// TestCheckGrace: failures do not count until the grace period is over, an answer does.
func TestCheckGrace(t *testing.T) {
	t.Parallel()
	check := every10s
	check.GracePeriod = time.Minute
	for _, row := range []struct {
		name  string
		since time.Duration // how long the Machine had run before
		at    time.Duration
		want  string
	}{
		{"in it", 0, 50 * time.Second, state.CheckWarning},
		{"after it", 0, 75 * time.Second, state.CheckCritical},
		{"begun before the agent", 50 * time.Second, 25 * time.Second, state.CheckCritical},
	} {
		s := &switchable{broken: true}
		bubble(t, func() *records {
			m := checked(check)
			m.Events = []state.Event{{Type: "start", Status: state.Started, Timestamp: time.Now().Add(-row.since)}}
			return newRecords(m)
		}, s, flycast.ProberConfig{}, func(r *records) {
			pass(row.at)
			expectStatus(t, r, row.name, row.want)
		})
	}
}

// TestCheckFlaps: the rate of writes is bounded, and a Machine that flaps is out of use.
func TestCheckFlaps(t *testing.T) {
	t.Parallel()
	s := &switchable{}
	check := state.Check{Type: "tcp", Interval: time.Second}
	bubble(t, func() *records { return newRecords(checked(check)) }, s, flycast.ProberConfig{WriteInterval: 10 * time.Second}, func(r *records) {
		critical := 0
		const seconds = 200
		for i := range seconds {
			s.set(i%2 == 0)
			pass(time.Second)
			if status(r) == state.CheckCritical {
				critical++
			}
		}
		if n := r.written(); n > 5+seconds/10+1 {
			t.Errorf("%d writes in %d s, expected no more than one in 10 s after the first 5", n, seconds)
		}
		if critical < seconds*2/3 {
			t.Errorf("a Machine that flaps is out of use for %d of %d s, expected most", critical, seconds)
		}
		s.set(false)
		pass(30 * time.Second)
		expectStatus(t, r, "when it is well again", state.CheckPassing)
	})
}

// TestCheckRuns: what checks said belongs to one run, whoever asks them.
func TestCheckRuns(t *testing.T) {
	t.Parallel()
	s := &switchable{broken: true}
	known := checked(every10s)
	known.Checks = []state.CheckStatus{{Name: "servicecheck-00-tcp-8080", Status: state.CheckCritical, Output: "connect: connection refused"}}
	bubble(t, func() *records { return newRecords(known) }, s, flycast.ProberConfig{}, func(r *records) {
		pass(0)
		expectStatus(t, r, "after the agent's restart", state.CheckCritical)
		pass(5 * time.Second)
		if n := r.written(); n > 1 {
			t.Errorf("%d writes although nothing changed", n)
		}
		next := known
		next.InstanceID, next.Checks = "b", nil // state forgets them when a run ends
		r.put(next)
		pass(0)
		expectStatus(t, r, "in the next run", state.CheckWarning)
		pass(time.Second)
		expectStatus(t, r, "when that was asked", state.CheckCritical)
		again := next
		again.Restarts, again.Checks = 1, nil
		r.put(again)
		pass(0)
		expectStatus(t, r, "after a restart by policy", state.CheckWarning)
		stopped := again
		stopped.State, stopped.Checks = state.Stopped, nil
		r.put(stopped)
		asked := len(s.probes)
		pass(time.Minute)
		expectStatus(t, r, "when it is stopped", "")
		if len(s.probes) != asked {
			t.Errorf("%d probes of a Machine that is stopped", len(s.probes)-asked)
		}
		elsewhere := known
		elsewhere.Host = 4
		r.put(elsewhere)
		pass(time.Minute)
		if len(s.probes) != asked {
			t.Error("a Machine of another host was asked")
		}
	})
}

// TestCheckMany: hundreds of Machines whose servers hang take a bounded number of
// sockets, and leave those of another network alone.
func TestCheckMany(t *testing.T) {
	t.Parallel()
	s := &switchable{hang: true}
	config := flycast.ProberConfig{Probes: 64, NetworkProbes: 16}
	bubble(t, func() *records {
		r := newRecords()
		for i := range 300 {
			m := checked(every10s)
			m.ID, m.Number = string(rune('a'+i/26/26%26))+string(rune('a'+i/26%26))+string(rune('a'+i%26)), sixpn.Machine(i+1)
			r.put(m)
		}
		other := checked(every10s)
		other.ID, other.Network = checkedID, 2
		r.put(other)
		return r
	}, s, config, func(r *records) {
		pass(4 * time.Second)
		expectStatus(t, r, "in another network", state.CheckCritical)
		if most := s.mostAtOnce(); most > 17 {
			t.Errorf("%d connections at once, expected at most 17", most)
		}
		pass(time.Minute)
	})
}
