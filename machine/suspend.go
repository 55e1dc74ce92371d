package machine

import (
	"context"
	"time"

	"github.com/sixpn/sixpn/state"
)

// suspend freezes a run in order: out of DNS and of the tables, so that nothing new
// is sent to it, then the freezer. The flows that it has stay, and go on when it
// does. Whatever interrupts it, the next step does again what is missing.
func (w *worker) suspend(ctx context.Context, record state.Machine, p *Process, retry time.Duration) time.Duration {
	if record.State == state.Suspended && w.frozen {
		return w.retryOr(retry)
	}
	next := outcome{state: state.Suspending, code: w.exitCode(record), restarts: w.restarts(record), relayed: p.Relayed(), instance: record.InstanceID}
	if record.State != state.Suspended { // of an earlier agent, whose tables have it so already
		w.outcome = next
		revision, err := w.publish(ctx)
		if err != nil {
			w.log.Warn("a suspend waits for the store", "error", err)
			return w.m.config.RetryInterval
		}
		w.reached("suspending written")
		w.awaitApplied(ctx, revision, "a machine is suspended although the kernel's tables may still choose it")
	}
	freezeCtx, cancel := context.WithTimeout(ctx, w.m.config.FreezeTimeout)
	defer cancel()
	w.frozen = true // also when only a part stands still: a thaw is due then
	if err := p.Freeze(freezeCtx); err != nil {
		if ctx.Err() == nil {
			w.log.Warn("a machine does not stand still yet", "error", err)
		}
		return w.m.config.RetryInterval
	}
	w.reached("frozen")
	next.state = state.Suspended
	w.settle(ctx, next)
	w.reached("suspended written")
	return w.retryOr(retry)
}

// resume lets a frozen run go on. It is false if that did not work yet.
func (w *worker) resume(ctx context.Context, p *Process) bool {
	if !w.frozen {
		return true
	}
	thawCtx, cancel := context.WithTimeout(ctx, w.m.config.FreezeTimeout)
	defer cancel()
	if err := p.Thaw(thawCtx); err != nil {
		if ctx.Err() == nil && p.Phase() != PhaseEnded {
			w.log.Warn("a machine does not go on yet", "error", err)
		}
		return false
	}
	w.frozen = false
	w.reached("thawed")
	return true
}

// awaitApplied waits until the kernel's tables have a revision, but not for ever.
func (w *worker) awaitApplied(ctx context.Context, revision int64, otherwise string) {
	applyCtx, cancel := context.WithTimeout(ctx, w.m.config.ApplyTimeout)
	defer cancel()
	if err := w.m.config.Ports.Applied(applyCtx, revision); err != nil && ctx.Err() == nil {
		w.log.Warn(otherwise, "error", err)
	}
	w.reached("tables applied")
}
