package machine

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sixpn/sixpn/state"
)

// worker looks after one Machine. One goroutine does everything in its turn, so
// no two steps of one Machine ever overlap; the others only tell it things.
type worker struct {
	m       *Manager
	id      string
	log     *slog.Logger
	started bool          // of the Manager, under its lock
	wake    chan struct{} // there is news

	mu       sync.Mutex
	told     bool           // record is valid, always so once run began
	record   *state.Machine // nil: there is none any more
	revision int64          // that record is of
	process  *Process       // the run, until its end has been dealt with

	// Below is run's alone.
	unstarted   *Spec     // of a run of an earlier agent whose command never ran
	frozen      bool      // the run was told to stand still, and not yet to go on
	attached    *attached // instead of a process
	portDue     bool      // an adopted run whose port could not be given to Ports yet
	last        *lastRun  // nil: never ran, as far as this host knows
	restartDue  time.Time // when the policy's pause is over, zero if nothing was decided
	outcome     outcome
	unpublished bool // the store did not take outcome yet
	destroyed   bool // the record was removed, and the news of it is to come
}

// outcome is what a record shall say about what became of its Machine.
type outcome struct {
	state    state.MachineState
	code     *int
	message  string
	restarts int
	relayed  []uint16
	instance string // of the run that goes on, or begins; empty: none does
}

func newWorker(m *Manager, id string) *worker {
	return &worker{m: m, id: id, log: m.log.With("machine", id), wake: make(chan struct{}, 1)}
}

// tell gives a worker its record, unless it knows a newer one.
func (w *worker) tell(record *state.Machine, revision int64) {
	w.mu.Lock()
	if !w.told || revision >= w.revision {
		w.told, w.record, w.revision = true, record, revision
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) current() *state.Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record
}

func (w *worker) running() *Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.process
}

func (w *worker) setProcess(p *Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.process = p
}

// never is the delay of a step that waits for news only.
const never = time.Duration(-1)

// run takes one step after another until the record is gone or ctx ends.
func (w *worker) run(ctx context.Context) {
	for {
		delay, done := w.step(ctx)
		if done || ctx.Err() != nil {
			return
		}
		var exited, news <-chan struct{}
		if p := w.running(); p != nil {
			exited, news = p.Exited(), p.news
		}
		var gone <-chan struct{}
		var heard <-chan net.HardwareAddr
		if a := w.attached; a != nil {
			gone, heard = a.gone, a.heard
		}
		var due <-chan time.Time
		if delay != never {
			due = time.After(delay)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-exited:
		case <-news:
		case <-gone:
		case mac := <-heard:
			if err := w.learn(ctx, mac); err != nil {
				w.log.Warn("the hardware address of a guest is not in the tables yet", "error", err)
				w.hearAgain(mac)
			}
		case <-due:
		}
	}
}

// step does what is due next. It returns when to look again without news.
func (w *worker) step(ctx context.Context) (delay time.Duration, done bool) {
	if p := w.running(); p != nil && p.Phase() == PhaseEnded {
		w.noteEnd(ctx, p)
	}
	record := w.current()
	if record == nil {
		return w.forget(ctx)
	}
	if w.destroyed {
		return never, false
	}
	retry := never
	if w.unpublished {
		if _, err := w.publish(ctx); err != nil {
			retry = w.m.config.RetryInterval
		}
	}
	if w.portDue {
		if err := w.addPort(ctx, w.running()); err != nil {
			w.log.Warn("an adopted machine has no port yet", "error", err)
			retry = w.m.config.RetryInterval
		}
	}
	p := w.running()
	switch {
	case w.attached != nil:
		return w.stepAttached(ctx, *record, retry)
	case record.Desired == state.Destroyed:
		return w.destroy(ctx, p)
	case p != nil && (record.Desired == state.Stopped || p.Spec().Instance != record.InstanceID || record.Leaving()):
		return w.stop(ctx, p)
	case p != nil && record.Desired == state.Suspended:
		return w.suspend(ctx, *record, p, retry), false
	case p == nil && record.Leaving():
		return w.handOver(ctx, *record), false
	case p == nil && w.cannotArrive(*record):
		return w.handBack(ctx, *record), false
	case record.Desired != state.Started: // without a run there is nothing to suspend
		return w.settleStopped(ctx, record, retry), false
	case p != nil:
		if !w.resume(ctx, p) {
			return w.m.config.RetryInterval, false
		}
		if record.State == state.Starting && !w.awaitListeners(ctx, *record, p) { // of an earlier agent
			return 0, false
		}
		w.settle(ctx, outcome{state: state.Started, code: w.exitCode(*record), restarts: w.restarts(*record), relayed: p.Relayed(), instance: record.InstanceID})
		return w.retryOr(retry), false
	}
	return w.considerStart(ctx, *record, retry), false
}

// retryOr is the delay of a step that may have left something unpublished.
func (w *worker) retryOr(delay time.Duration) time.Duration {
	if w.unpublished && (delay == never || delay > w.m.config.RetryInterval) {
		return w.m.config.RetryInterval
	}
	return delay
}

// restarts is what a record's Restarts shall be while a run goes on: the
// store may not have taken the latest yet.
func (w *worker) restarts(record state.Machine) int {
	if w.outcome.state != "" {
		return w.outcome.restarts
	}
	return record.Restarts
}

// exitCode is what a record's ExitCode shall be while a run goes on: that of
// the run before, which again the store may not have taken yet.
func (w *worker) exitCode(record state.Machine) *int {
	if w.last != nil && !w.last.failed {
		return &w.last.code
	}
	return record.ExitCode
}

// settleStopped makes the record of a Machine that shall not run say so.
func (w *worker) settleStopped(ctx context.Context, record *state.Machine, retry time.Duration) time.Duration {
	// One that was made to be started later stays "created" until then.
	created := record.State == state.Created && w.last == nil
	if record.State != state.Stopped && !created || !w.restartDue.IsZero() {
		next := outcome{state: state.Stopped, code: w.exitCode(*record), restarts: w.restarts(*record)}
		if w.last != nil {
			next.message = w.last.message
		}
		w.settle(ctx, next)
	}
	w.restartDue = time.Time{}
	return w.retryOr(retry)
}

// considerStart starts a Machine that shall run and does not, when its policy
// says so.
func (w *worker) considerStart(ctx context.Context, record state.Machine, retry time.Duration) time.Duration {
	if u := w.unstarted; u != nil && w.last == nil && u.Instance == record.InstanceID && record.State == state.Failed {
		// The earlier agent had tried, and has said why it cannot run. Else that
		// agent ended while it tried, and the run counts as none.
		w.last = &lastRun{instance: u.Instance, attempt: u.Attempt, code: 1, failed: true, message: record.Message}
	}
	d := decide(record.InstanceID, record.Config.Restart, w.last, w.m.config.Backoff)
	if !d.start {
		w.restartDue = time.Time{}
		w.settleEnded(ctx, record, d)
		return w.retryOr(retry)
	}
	restarts := 0
	if w.last != nil && w.last.instance == record.InstanceID {
		restarts = w.restarts(record) + 1
	}
	if d.pause > 0 {
		if w.restartDue.IsZero() {
			w.restartDue = time.Now().Add(d.pause)
			w.settleEnded(ctx, record, d)
		}
		if wait := time.Until(w.restartDue); wait > 0 {
			return w.retryOr(wait)
		}
	}
	w.restartDue = time.Time{}
	if !w.start(ctx, record, d.attempt, restarts) {
		return w.m.config.RetryInterval // or with the news that it is another's
	}
	return 0
}

// settleEnded makes the record say how the last run ended.
func (w *worker) settleEnded(ctx context.Context, record state.Machine, d decision) {
	next := outcome{state: state.Stopped, code: &w.last.code, message: w.last.describe(d), restarts: w.restarts(record)}
	if w.last.failed || d.gaveUp {
		next.state = state.Failed
	}
	if w.last.failed {
		next.code = record.ExitCode
	}
	// An earlier agent may have said it, and better: it saw the end.
	said := w.outcome.state == "" && (record.State == state.Stopped || record.State == state.Failed)
	if !said {
		w.settle(ctx, next)
	}
	if record.Config.AutoDestroy && !d.start {
		w.askDestroy(ctx)
	}
}
