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
			if err := waitFor(ctx, client, app, id, state, t.wait); err != nil {
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
	if isStatus(err, http.StatusNotFound) {
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
func waitFor(ctx context.Context, client *api.ClientWithResponses, app, id string, state api.WaitMachineParamsState, limit time.Duration) error {
	wanted := state
	if state == api.WaitMachineParamsStateStarted {
		wanted = api.WaitMachineParamsStateSettled
	}
	seconds := max(1, int(limit.Round(time.Second)/time.Second))
	answer, err := client.WaitMachineWithResponse(ctx, app, id, &api.WaitMachineParams{State: wanted, Timeout: seconds})
	err = api.Check(answer, err)
	if state == api.WaitMachineParamsStateDestroyed && isStatus(err, http.StatusNotFound) {
		return nil // it was gone already
	}
	if err != nil || answer.JSON200.State == string(state) || state == api.WaitMachineParamsStateSettled {
		return err
	}
	m, err := latest(ctx, client, app, api.Machine{ID: id})
	if err != nil {
		return err
	}
	return fmt.Errorf("Machine %s is %s, not %s%s; see: sixpn machine logs %s", id, m.State, state, why(m), id)
}

// why is what is known of why a Machine is in its state.
func why(m api.Machine) string {
	if m.Message != "" {
		return ": " + m.Message
	}
	if exit := exitOf(m); exit != nil {
		return fmt.Sprintf(", exit code %d", exit.ExitCode)
	}
	return ""
}

func machineStart(c *cli) *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:     "start ID...",
		Short:   "Start Machines",
		Example: "  sixpn machine start 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateStarted, func(app, id string) error {
			return api.Check(client.StartMachineWithResponse(ctx, app, id, &api.StartMachineParams{}))
		})
	})
}

func machineStop(c *cli) *cobra.Command {
	var t target
	var signal string
	var timeout int
	command := &cobra.Command{
		Use:   "stop ID...",
		Short: "Stop Machines",
		Long: `Stop Machines: they leave names and Flycast addresses first, then get the signal,
and after the timeout SIGKILL.`,
		Example: "  sixpn machine stop 148e21dad76789\n  sixpn machine stop --signal SIGINT --timeout 30 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	command.Flags().StringVarP(&signal, "signal", "s", "", "signal (default the Machine's, or SIGTERM)")
	command.Flags().IntVar(&timeout, "timeout", 0, "seconds until SIGKILL (default the Machine's, or the host's)")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if timeout < 0 {
			return usagef("--timeout is %d, expected 0 (the default) or seconds", timeout)
		}
		if !command.Flags().Changed("wait-timeout") {
			t.wait += time.Duration(timeout) * time.Second
		}
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateStopped, func(app, id string) error {
			return api.Check(client.StopMachineWithResponse(ctx, app, id, &api.StopMachineParams{}, api.StopRequest{
				ID: id, Signal: signal, Timeout: api.DurationValue(time.Duration(timeout) * time.Second),
			}))
		})
	})
}

func machineRestart(c *cli) *cobra.Command {
	var t target
	var signal string
	var timeout int
	var force bool
	command := &cobra.Command{
		Use:     "restart ID...",
		Short:   "Stop Machines and start them again",
		Example: "  sixpn machine restart 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	command.Flags().StringVarP(&signal, "signal", "s", "", "signal (default the Machine's, or SIGTERM)")
	command.Flags().IntVar(&timeout, "time", 0, "seconds until SIGKILL (default the Machine's, or the host's)")
	command.Flags().BoolVar(&force, "force", false, "SIGKILL at once")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if timeout < 0 {
			return usagef("--time is %d, expected 0 (the default) or seconds", timeout)
		}
		params := &api.RestartMachineParams{Signal: signal, ForceStop: force}
		if timeout > 0 {
			params.Timeout = (time.Duration(timeout) * time.Second).String()
		}
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateStarted, func(app, id string) error {
			return api.Check(client.RestartMachineWithResponse(ctx, app, id, params))
		})
	})
}

func machineDestroy(c *cli) *cobra.Command {
	var t target
	var force bool
	command := &cobra.Command{
		Use:     "destroy ID...",
		Aliases: []string{"remove", "rm"},
		Short:   "Destroy Machines, with their logs",
		Example: "  sixpn machine destroy 148e21dad76789\n  sixpn machine destroy --force 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	command.Flags().BoolVarP(&force, "force", "f", false, "even if it runs")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateDestroyed, func(app, id string) error {
			return api.Check(client.DestroyMachineWithResponse(ctx, app, id, &api.DestroyMachineParams{Force: force}))
		})
	})
}
