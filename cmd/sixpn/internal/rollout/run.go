package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sixpn/sixpn/api"
)

// Runner carries plans out.
type Runner struct {
	Client   *api.ClientWithResponses
	Owner    string // of the leases, for people
	Progress func(Progress)

	Immediate   bool          // change all Machines at once, and do not wait for their checks
	Detach      bool          // do not wait for anything
	WaitTimeout time.Duration // for one Machine to start and for its checks to pass
	Settle      time.Duration // how long one without checks must go on running
	LeaseTTL    time.Duration // leases are renewed meanwhile
	Poll        time.Duration // between two looks at a Machine
}

// Progress is what goes on with a step.
type Progress struct {
	Step, Of int // from 1 on
	Outcome
	Doing string // what is being waited for
}

// Outcome is what became of a step.
type Outcome struct {
	Action    Action `json:"action"`
	Group     string `json:"group"`
	Name      string `json:"name"`
	MachineID string `json:"machine_id,omitempty"`
	Result    Result `json:"result"`
	Message   string `json:"message,omitempty"`
	Logs      string `json:"logs,omitempty"` // the last that a Machine wrote which failed
}

// Result is how a step ended.
type Result string

// The results.
const (
	Pending     Result = "not begun"
	Running     Result = "under way"
	Done        Result = "done"
	Failed      Result = "failed"
	RolledBack  Result = "rolled back"
	Interrupted Result = "interrupted" // in the middle, and left as it was then
)

// ErrInterrupted is a rollout that its context ended.
var ErrInterrupted = errors.New("interrupted: what was done stays as it is")

// run is one rollout.
type run struct {
	*Runner
	plan     Plan
	leases   *leases
	outcomes []Outcome
	cordoned []bool // by step: by us, so it is to be uncordoned
	instance []string
}

// Run carries a plan out. What it did is in the outcomes, one for each step, also
// when there is an error: then updates were taken back and new Machines destroyed,
// unless ctx ended, which leaves everything as it is then.
func (r *Runner) Run(ctx context.Context, plan Plan) ([]Outcome, error) {
	n := len(plan.Steps)
	x := &run{Runner: r, plan: plan, outcomes: make([]Outcome, n), cordoned: make([]bool, n), instance: make([]string, n)}
	var ids []string
	for i, step := range plan.Steps {
		x.outcomes[i] = Outcome{Action: step.Action, Group: step.Group, Name: step.Name, MachineID: step.Before.ID, Result: Pending}
		if step.Before.ID != "" {
			ids = append(ids, step.Before.ID)
		}
	}
	var err error
	if x.leases, err = r.take(ctx, plan.App, ids); err != nil {
		return x.outcomes, err
	}
	working, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	keeping, stop := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		if err := x.leases.renew(keeping); err != nil {
			lose(err)
		}
	})
	err = x.steps(working)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		x.abandon(ctx)
		err = ErrInterrupted
	case working.Err() != nil:
		// Another one may be at work on the same Machines: nothing is ours to take back.
		x.abandon(ctx)
		err = context.Cause(working)
	default:
		err = errors.Join(err, x.rollBack(context.WithoutCancel(ctx)))
	}
	stop()
	renewing.Wait()
	return x.outcomes, errors.Join(err, x.leases.release(ctx))
}

// steps does everything in its order. Machines are destroyed when all else is done.
func (x *run) steps(ctx context.Context) error {
	changes := slices.IndexFunc(x.plan.Steps, func(s Step) bool { return s.Action == Destroy })
	if changes < 0 {
		changes = len(x.plan.Steps)
	}
	if x.Immediate || x.Detach {
		for i := range changes {
			if err := x.step(i, x.change(ctx, i)); err != nil {
				return err
			}
		}
		for i := range changes {
			if err := x.step(i, x.settled(ctx, i)); err != nil {
				return err
			}
		}
	} else {
		for i := range changes {
			if err := x.step(i, x.change(ctx, i)); err != nil {
				return err
			}
			if err := x.step(i, x.settled(ctx, i)); err != nil {
				return err
			}
		}
	}
	for i := changes; i < len(x.plan.Steps); i++ {
		if err := x.step(i, x.destroy(ctx, i)); err != nil {
			return err
		}
	}
	return nil
}

// step puts an error down to a step.
func (x *run) step(i int, err error) error {
	if err == nil {
		return nil
	}
	x.outcomes[i].Result, x.outcomes[i].Message = Failed, err.Error()
	return fmt.Errorf("%s: %w", x.plan.Steps[i].describe(), err)
}

func (s Step) describe() string { return fmt.Sprintf("%s %s", s.Action, s.Name) }

// finish is the end of a step that went well.
func (x *run) finish(i int) {
	x.outcomes[i].Result = Done
	x.tell(i, "")
}

// tell reports what goes on with a step.
func (x *run) tell(i int, doing string) {
	if x.Progress != nil {
		x.Progress(Progress{Step: i + 1, Of: len(x.plan.Steps), Outcome: x.outcomes[i], Doing: doing})
	}
}

// settled waits for a changed Machine, and lets Flycast have it again.
func (x *run) settled(ctx context.Context, i int) error {
	if !x.Detach && x.plan.Steps[i].Launch {
		if err := x.wait(ctx, i, !x.Immediate); err != nil {
			return err
		}
	}
	if err := x.uncordon(ctx, i); err != nil {
		return err
	}
	x.finish(i)
	return nil
}

// abandon leaves things as they are, but no Machine half made or cordoned.
func (x *run) abandon(ctx context.Context) {
	for i := range x.plan.Steps {
		outcome := &x.outcomes[i]
		if outcome.Result != Running && outcome.Result != Failed {
			continue
		}
		outcome.Result, outcome.Message = Interrupted, "it has its new configuration, and was not waited for"
		if x.instance[i] == "" {
			outcome.Message = "it was not changed"
		}
		if err := x.uncordon(ctx, i); err != nil {
			outcome.Message += "; " + err.Error()
		}
		x.tell(i, "")
	}
}

// rollBack takes back what was done, the latest first. What was destroyed is gone.
func (x *run) rollBack(ctx context.Context) error {
	var errs []error
	for i := len(x.plan.Steps) - 1; i >= 0; i-- {
		step, outcome := x.plan.Steps[i], &x.outcomes[i]
		if step.Action == Destroy || outcome.Result == Pending || outcome.MachineID == "" {
			continue
		}
		x.tell(i, "taking it back")
		if err := x.takeBack(ctx, i); err != nil {
			outcome.Result = Failed
			outcome.Message = joinText(outcome.Message, "it could not be taken back: "+err.Error())
			errs = append(errs, fmt.Errorf("take back %s: %w", step.describe(), err))
		} else {
			outcome.Result = RolledBack
		}
		x.tell(i, "")
	}
	return errors.Join(errs...)
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
