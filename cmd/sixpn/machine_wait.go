package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

// settleTime is how long a command waits for a Machine unless told otherwise.
const settleTime = time.Minute

// target is the Machines that a command is about.
type target struct {
	app  string
	wait time.Duration
}

func (t *target) flags(command *cobra.Command) {
	command.Flags().StringVarP(&t.app, "app", "a", "", "app of the Machines (default look in all)")
	command.Flags().DurationVarP(&t.wait, "wait-timeout", "w", settleTime, "how long to wait until it is done, 0 to not wait")
}

// each does something to Machines one after the other. act asks for it, then the
// Machine is waited for, in this state.
func (c *cli) each(ctx context.Context, client *api.ClientWithResponses, t target, ids []string,
	state api.WaitMachineParamsState, act func(app, id string) error,
) error {
	var machines []api.Machine
	for _, id := range ids {
		app, m, err := find(ctx, client, t.app, id)
		if err != nil {
			return err
		}
		if err := act(app, id); err != nil {
			return err
		}
		if t.wait > 0 {
			if err := c.waitFor(ctx, client, app, id, state, t.wait); err != nil {
				return err
			}
			if err := c.applied(ctx, client); err != nil {
				return err
			}
		}
		if m, err = latest(ctx, client, app, m); err != nil {
			return err
		}
		machines = append(machines, m)
		if !c.json {
			fmt.Fprintf(c.out, "%s is %s\n", id, m.State)
		}
	}
	if c.json {
		return c.printJSON(machines)
	}
	return nil
}

// latest is a Machine as it is now; state destroyed if it is gone.
func latest(ctx context.Context, client *api.ClientWithResponses, app string, m api.Machine) (api.Machine, error) {
	answer, err := client.GetMachineWithResponse(ctx, app, m.ID)
	err = api.Check(answer, err)
	if api.IsStatus(err, http.StatusNotFound) {
		m.State = string(api.WaitMachineParamsStateDestroyed)
		return m, nil
	}
	if err != nil {
		return m, err
	}
	return *answer.JSON200, nil
}

// waitFor waits until a Machine is in a state. One that is to start and ends
// instead is an error, and so is one that failed.
func (c *cli) waitFor(ctx context.Context, client *api.ClientWithResponses, app, id string, state api.WaitMachineParamsState, limit time.Duration) error {
	c.note("Waiting until Machine %s is %s", id, state)
	wanted := state
	if state == api.WaitMachineParamsStateStarted {
		wanted = api.WaitMachineParamsStateSettled
	}
	seconds := max(1, int(limit.Round(time.Second)/time.Second))
	answer, err := client.WaitMachineWithResponse(ctx, app, id, &api.WaitMachineParams{State: wanted, Timeout: seconds})
	err = api.Check(answer, err)
	if state == api.WaitMachineParamsStateDestroyed && api.IsStatus(err, http.StatusNotFound) {
		return nil // it was gone already
	}
	if err != nil || answer.JSON200.State == string(state) || state == api.WaitMachineParamsStateSettled {
		return err
	}
	m, err := latest(ctx, client, app, api.Machine{ID: id})
	if err != nil {
		return err
	}
	return fmt.Errorf("Machine %s is %s, not %s%s; see: sixpn machine logs %s", id, m.State, state, m.Why(), id)
}

// applied returns when the kernel and DNS have what the agent knows now, if that
// is wanted: what a Machine has become is not part of the write that led to it.
func (c *cli) applied(ctx context.Context, client *api.ClientWithResponses) error {
	if !c.wait {
		return nil
	}
	var wanted int64
	done, err := c.eventually(ctx, settleTime, func() (bool, error) {
		answer, err := client.GetStatusWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return false, err
		}
		if wanted == 0 {
			wanted = answer.JSON200.Revision.Wanted
		}
		return answer.JSON200.Revision.Applied >= wanted, nil
	})
	if err == nil && !done {
		return fmt.Errorf("it is recorded, but after %s the data plane does not have it; see: sixpn status", settleTime)
	}
	return err
}

// eventually looks again and again until a condition holds; false if it did not
// before the limit.
func (c *cli) eventually(ctx context.Context, limit time.Duration, condition func() (bool, error)) (bool, error) {
	deadline := time.Now().Add(limit)
	for {
		if done, err := condition(); done || err != nil {
			return done, err
		}
		if !time.Now().Before(deadline) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(c.poll):
		}
	}
}
