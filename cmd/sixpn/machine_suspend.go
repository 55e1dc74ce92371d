package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineSuspend(c *cli) *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:   "suspend ID...",
		Short: "Suspend Machines",
		Long: `Suspend Machines: they leave names and Flycast addresses first, then all that runs in
them stands still, with its memory and connections, until they are resumed.`,
		Example: "  sixpn machine suspend 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateSuspended, func(app, id string) error {
			return api.Check(client.SuspendMachineWithResponse(ctx, app, id, &api.SuspendMachineParams{Wait: c.until()}))
		})
	})
}

func machineResume(c *cli) *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:     "resume ID...",
		Short:   "Let suspended Machines go on where they were",
		Long:    `Let suspended Machines go on where they were, which "sixpn machine start" does too.`,
		Example: "  sixpn machine resume 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateStarted, func(app, id string) error {
			return api.Check(client.StartMachineWithResponse(ctx, app, id, &api.StartMachineParams{Wait: c.until()}))
		})
	})
}
