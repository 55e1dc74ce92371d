package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineKill(c *cli) *cobra.Command {
	var app, signal string
	command := &cobra.Command{
		Use:   "kill ID...",
		Short: "Send a signal to the command of Machines, SIGKILL unless another is named",
		Long: `Send a signal to the command of started Machines. Nothing else is done: a command
that ends by it counts as one that ended by itself, so that the Machine's restart
policy holds. To have a Machine stopped use "sixpn machine stop".`,
		Example: "  sixpn machine kill 148e21dad76789\n  sixpn machine kill --signal SIGHUP 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	anyAppFlag(command, &app)
	command.Flags().StringVarP(&signal, "signal", "s", "SIGKILL", "signal")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		for _, id := range args {
			app, _, err := find(ctx, client, app, id)
			if err != nil {
				return err
			}
			answer, err := client.SignalMachineWithResponse(ctx, app, id, &api.SignalMachineParams{}, api.SignalRequest{Signal: signal})
			if err := api.Check(answer, err); err != nil {
				return err
			}
			if !c.json {
				fmt.Fprintf(c.out, "Sent %s to %s\n", signal, id)
			}
		}
		if c.json {
			return c.printJSON(map[string]any{"signal": signal, "machines": args})
		}
		return nil
	})
}
