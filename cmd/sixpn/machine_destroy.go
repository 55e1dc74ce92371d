package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

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
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateDestroyed, func(app, id string) error {
			return api.Check(client.DestroyMachineWithResponse(ctx, app, id, &api.DestroyMachineParams{Wait: c.until(), Force: force}))
		})
	})
}
