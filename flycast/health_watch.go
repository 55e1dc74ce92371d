package flycast

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// Writes of one Machine that may follow each other at once. The last is kept for a
// check that became critical: a Machine that flaps ends up out of use, not in it.
const writeBurst = 5

// result is what one probe found.
type result struct {
	check  int
	output string
	failed bool
}

// errOver says that a run ended while what its checks say was to be written.
var errOver = errors.New("the run is over")

// run asks all checks, each at its own pace, and writes what changes, until ctx ends.
func (w *watch) run(ctx context.Context) {
	results := make(chan result)
	began, known := w.began(), w.known()
	var asking sync.WaitGroup
	defer asking.Wait()
	for i, check := range w.checks {
		asking.Go(func() { w.repeat(ctx, i, check, known, results) })
	}

	seen := w.initial(known)
	w.show(seen)
	w.prober.asked.Store(w.machine.ID, w)
	defer w.prober.asked.CompareAndDelete(w.machine.ID, w) // it may be the next run's
	written := slices.Clone(w.machine.Checks)
	limit := rate.NewLimiter(rate.Every(w.prober.config.WriteInterval), writeBurst)
	var last time.Time // of a write
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-results:
			w.judge(&seen[r.check], r, began)
			w.show(seen)
		case <-timer.C:
		}
		wait := due(written, seen, limit, w.prober.config.WriteInterval, last.Add(w.prober.config.TextInterval))
		switch {
		case wait < 0: // it is all written
			continue
		case wait == 0:
			limit.Allow()
			if err := w.write(ctx, seen); err != nil {
				if ctx.Err() == nil && !errors.Is(err, errOver) {
					w.prober.config.Log.Warn("what health checks say cannot be written", "machine", w.machine.ID, "error", err)
				}
				wait = w.prober.config.Retry
				break
			}
			written, last = slices.Clone(seen), time.Now()
			continue
		}
		timer.Reset(wait)
	}
}

// show is for Latest.
func (w *watch) show(seen []state.CheckStatus) {
	latest := slices.Clone(seen)
	w.seen.Store(&latest)
}

// known says whether the record has what the checks of this run said to an earlier
// agent. State forgets it when a run ends.
func (w *watch) known() bool {
	return slices.EqualFunc(w.machine.Checks, w.checks, func(s state.CheckStatus, c state.NamedCheck) bool {
		return s.Name == c.Name && s.Service == c.Service
	})
}

// initial is what is so before the first answer.
func (w *watch) initial(known bool) []state.CheckStatus {
	if known {
		return slices.Clone(w.machine.Checks)
	}
	statuses := make([]state.CheckStatus, len(w.checks))
	for i, check := range w.checks {
		statuses[i] = state.CheckStatus{
			Name: check.Name, Service: check.Service, Status: state.CheckWarning,
			Output: "not checked yet", UpdatedAt: time.Now().UTC(),
		}
	}
	return statuses
}

// judge takes up what a probe found. In the grace period a failure is noted and does
// not count.
func (w *watch) judge(status *state.CheckStatus, r result, began time.Time) {
	next := state.CheckPassing
	if r.failed {
		next = state.CheckCritical
		if time.Since(began) < w.checks[r.check].GracePeriod {
			next = status.Status
		}
	}
	if next == status.Status && (r.output == status.Output || next == state.CheckPassing) {
		return
	}
	status.Status, status.Output, status.UpdatedAt = next, r.output, time.Now().UTC()
}

// due is the time until the statuses may be written: below 0 if there is nothing to
// write, 0 for now. text is when a change of what checks say may be written that
// changes nothing else.
func due(written, seen []state.CheckStatus, limit *rate.Limiter, interval time.Duration, text time.Time) time.Duration {
	worse, changed, said := false, len(written) != len(seen), false
	for i := range seen {
		if changed {
			break
		}
		before, now := written[i], seen[i]
		if before.Name != now.Name || before.Status != now.Status {
			changed = true
		}
		said = said || before.Output != now.Output
	}
	for _, now := range seen {
		was := slices.ContainsFunc(written, func(s state.CheckStatus) bool { return s.Name == now.Name && s.Status == state.CheckCritical })
		worse = worse || now.Status == state.CheckCritical && !was
	}
	needed := 2.0
	switch {
	case worse:
		needed = 1
	case changed:
	case said && time.Now().After(text):
	case said:
		return max(time.Until(text), time.Millisecond)
	default:
		return -1
	}
	if tokens := limit.Tokens(); tokens < needed {
		return max(time.Duration((needed-tokens)*float64(interval)), time.Millisecond)
	}
	return 0
}

// write puts the statuses into the Machine's record, if that is still of this run.
func (w *watch) write(ctx context.Context, statuses []state.CheckStatus) error {
	select {
	case w.prober.writes <- struct{}{}:
		defer func() { <-w.prober.writes }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, w.prober.config.WriteTimeout)
	defer cancel()
	_, _, err := w.prober.config.Store.UpdateMachine(ctx, w.machine.ID, func(m *state.Machine) error {
		if m.State != state.Started || !w.isRun(*m) {
			return errOver
		}
		m.Checks = slices.Clone(statuses)
		return nil
	})
	return err
}

// repeat asks one check again and again. Two probes begin at most one interval apart:
// the jitter only makes it shorter.
func (w *watch) repeat(ctx context.Context, i int, check state.NamedCheck, known bool, results chan<- result) {
	m := w.machine
	probe := newProbe(w.prober.config, sixpn.AgentAddr(m.Network, m.Host), netip.AddrPortFrom(m.Addr(), check.Port), check.Check)
	// A run that is new is wanted soon; those that an agent finds are spread.
	phase := min(check.Interval, time.Second)
	if known {
		phase = check.Interval
	}
	timer := time.NewTimer(rand.N(phase))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		release, ok := w.acquire(ctx)
		if !ok {
			return
		}
		began := time.Now()
		output, err := probe.ask(ctx)
		release()
		if ctx.Err() != nil {
			return // what failed is the end of the run, not the Machine
		}
		select {
		case results <- result{check: i, output: output, failed: err != nil}:
		case <-ctx.Done():
			return
		}
		jitter := rand.N(check.Interval/10 + 1)
		timer.Reset(max(check.Interval-jitter-time.Since(began), check.Interval/10))
	}
}
