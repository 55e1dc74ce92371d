package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineCordon(c *cli) *cobra.Command {
	return cordonCommand(c, &cobra.Command{
		Use:   "cordon ID...",
		Short: "Take Machines out of Flycast",
		Long: `Take Machines out of Flycast: they get no new connection by Flycast addresses until
they are uncordoned. Those they have go on, and names lead to them as before.`,
		Example: "  sixpn machine cordon 148e21dad76789",
	}, "out of", func(ctx context.Context, client *api.ClientWithResponses, app, id string) error {
		return api.Check(client.CordonMachineWithResponse(ctx, app, id, &api.CordonMachineParams{Wait: c.until()}))
	})
}

func machineUncordon(c *cli) *cobra.Command {
	return cordonCommand(c, &cobra.Command{
		Use:     "uncordon ID...",
		Short:   "Put Machines back into Flycast",
		Example: "  sixpn machine uncordon 148e21dad76789",
	}, "in", func(ctx context.Context, client *api.ClientWithResponses, app, id string) error {
		return api.Check(client.UncordonMachineWithResponse(ctx, app, id, &api.UncordonMachineParams{Wait: c.until()}))
	})
}

func cordonCommand(c *cli, command *cobra.Command, where string,
	act func(ctx context.Context, client *api.ClientWithResponses, app, id string) error,
) *cobra.Command {
	var app string
	command.Args = cobra.MinimumNArgs(1)
	anyAppFlag(command, &app)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		machines := []api.Machine{}
		for _, id := range args {
			app, m, err := find(ctx, client, app, id)
			if err != nil {
				return err
			}
			if err := act(ctx, client, app, id); err != nil {
				return err
			}
			if m, err = latest(ctx, client, app, m); err != nil {
				return err
			}
			machines = append(machines, m)
			if !c.json {
				fmt.Fprintf(c.out, "%s is %s Flycast\n", id, where)
			}
		}
		if c.json {
			return c.printJSON(machines)
		}
		return nil
	})
}
