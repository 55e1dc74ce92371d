package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineStart(c *cli) *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:     "start ID...",
		Short:   "Start Machines",
		Example: "  sixpn machine start 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateStarted, func(app, id string) error {
			return api.Check(client.StartMachineWithResponse(ctx, app, id, &api.StartMachineParams{Wait: c.until()}))
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
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if timeout < 0 {
			return usagef("--timeout is %d, expected 0 (the default) or seconds", timeout)
		}
		if !command.Flags().Changed("wait-timeout") {
			t.wait += time.Duration(timeout) * time.Second
		}
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateStopped, func(app, id string) error {
			return api.Check(client.StopMachineWithResponse(ctx, app, id, &api.StopMachineParams{Wait: c.until()}, api.StopRequest{
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
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if timeout < 0 {
			return usagef("--time is %d, expected 0 (the default) or seconds", timeout)
		}
		params := &api.RestartMachineParams{Wait: c.until(), Signal: signal, ForceStop: force}
		if timeout > 0 {
			params.Timeout = (time.Duration(timeout) * time.Second).String()
		}
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateStarted, func(app, id string) error {
			return api.Check(client.RestartMachineWithResponse(ctx, app, id, params))
		})
	})
}
