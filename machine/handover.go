package machine

import (
	"context"
	"time"

	"github.com/sixpn/sixpn/state"
)

// A Machine that migrates belongs to one host at any revision of the store. Its old
// host stops it as for any stop, and only then hands it over, in one transaction; its
// new host starts what has become its own. What this host says of a Machine after it
// was handed over is refused there.

// handOver gives a Machine that does not run to the host that it is to go to. It may
// also stay, when that host cannot take it any more.
func (w *worker) handOver(ctx context.Context, record state.Machine) time.Duration {
	return w.rehost(ctx, record, "handed over", w.m.config.Store.HandOver)
}

// cannotArrive is a Machine that came by a migration and cannot be started here.
func (w *worker) cannotArrive(record state.Machine) bool {
	return record.Arriving() && w.last != nil && w.last.failed && w.last.instance == record.InstanceID
}

// handBack gives it to the host that it came from.
func (w *worker) handBack(ctx context.Context, record state.Machine) time.Duration {
	return w.rehost(ctx, record, "handed back", func(ctx context.Context, id string) (state.Machine, int64, error) {
		return w.m.config.Store.HandBack(ctx, id, w.last.message)
	})
}

func (w *worker) rehost(ctx context.Context, record state.Machine, what string,
	write func(ctx context.Context, id string) (state.Machine, int64, error),
) time.Duration {
	storeCtx, cancel := context.WithTimeout(ctx, w.m.config.StoreTimeout)
	defer cancel()
	after, revision, err := write(storeCtx, w.id)
	if err != nil {
		if ctx.Err() == nil {
			w.log.Warn("a machine is not "+what+" yet", "error", err)
		}
		return w.m.config.RetryInterval
	}
	w.reached(what)
	if after.Host == record.Host {
		w.log.Warn("a machine stays on this host", "error", after.Migration.Error)
		w.tell(&after, revision)
		return 0
	}
	// What there was to say of its run is said by where it went.
	w.unpublished, w.restartDue = false, time.Time{}
	w.log.Info("a machine was "+what, "host", after.Host, "address", after.Addr())
	w.tell(nil, revision) // what is left of it here goes
	return 0
}
