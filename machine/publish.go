package machine

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/sixpn/sixpn/state"
)

var (
	// errAsWanted says that a record needs no write.
	errAsWanted = errors.New("the record says so already")
	// errReplaced says that a record asks for another run than the one that there is
	// something to say of. The news of it is on its way.
	errReplaced = errors.New("the record asks for another run")
)

// settle makes outcome what the record shall say, now or as soon as the store
// takes it.
func (w *worker) settle(ctx context.Context, next outcome) { _ = w.say(ctx, next) }

// say is settle that tells how the first try went.
func (w *worker) say(ctx context.Context, next outcome) error {
	w.outcome = next
	_, err := w.publish(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, errReplaced) {
		w.log.Warn("the state of a machine could not be written yet", "state", next.state, "error", err)
	}
	return err
}

// publish writes outcome to the record and returns the revision that has it.
func (w *worker) publish(ctx context.Context) (int64, error) {
	w.unpublished = false
	w.mu.Lock()
	record, revision := w.record, w.revision
	w.mu.Unlock()
	// A command may have said "starting" in the agent's place, and an agent that is
	// no more too; the start that it has to begin is still to be noted.
	begins := record != nil && w.outcome.state == state.Starting && record.Pending != ""
	if record == nil || outcomeOf(*record).equal(w.outcome) && !begins {
		return revision, nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.m.config.StoreTimeout)
	defer cancel()
	updated, revision, err := w.m.config.Store.UpdateMachine(ctx, w.id, func(r *state.Machine) error {
		// A run that was replaced meanwhile must not be named and chosen as if it were
		// the new one: that may be of another network.
		if w.outcome.instance != "" && w.outcome.instance != r.InstanceID {
			return errReplaced
		}
		r.State, r.ExitCode, r.Message, r.Restarts = w.outcome.state, w.outcome.code, w.outcome.message, w.outcome.restarts
		r.Relayed = w.outcome.relayed
		if r.State == state.Starting {
			r.Pending = "" // what ends from now on is the run that was asked for
		}
		return nil
	})
	if err != nil {
		w.unpublished = !errors.Is(err, errReplaced)
		return 0, err
	}
	w.tell(&updated, revision)
	return revision, nil
}

// askDestroy makes a record with AutoDestroy ask for the end of its Machine,
// unless a command came in between.
func (w *worker) askDestroy(ctx context.Context) {
	instance := w.last.instance
	ctx, cancel := context.WithTimeout(ctx, w.m.config.StoreTimeout)
	defer cancel()
	updated, revision, err := w.m.config.Store.UpdateMachine(ctx, w.id, func(r *state.Machine) error {
		if r.Desired != state.Started || r.InstanceID != instance {
			return errAsWanted
		}
		r.Desired = state.Destroyed
		return nil
	})
	switch {
	case err == nil:
		w.tell(&updated, revision)
	case !errors.Is(err, errAsWanted):
		w.unpublished = true // so that this is tried again
	}
}

func outcomeOf(r state.Machine) outcome {
	return outcome{state: r.State, code: r.ExitCode, message: r.Message, restarts: r.Restarts, relayed: r.Relayed}
}

func (o outcome) equal(other outcome) bool {
	same := slices.Equal(o.relayed, other.relayed) // none is none
	o.relayed, other.relayed = nil, nil
	o.instance, other.instance = "", ""
	return same && reflect.DeepEqual(o, other)
}
