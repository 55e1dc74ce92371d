package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineLogs(c *cli) *cobra.Command {
	var app string
	var follow bool
	command := c.verb(&cobra.Command{
		Use:     "logs ID",
		Short:   "Show what a Machine wrote to its standard output and error",
		Example: "  sixpn machine logs 148e21dad76789\n  sixpn machine logs --follow 148e21dad76789",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if c.json {
			return usagef("logs are what the Machine wrote, so there is no --json")
		}
		app, _, err := find(ctx, client, app, args[0])
		if err != nil {
			return err
		}
		return c.copyLogs(ctx, client, app, args[0], follow)
	})
	anyAppFlag(command, &app)
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the Machine has ended")
	return command
}

func (c *cli) copyLogs(ctx context.Context, client *api.ClientWithResponses, app, id string, follow bool) error {
	// The generated method with "WithResponse" would read to the end first.
	answer, err := client.MachineLogs(ctx, app, id, &api.MachineLogsParams{Follow: follow})
	if err := api.CheckResponse(answer, err); err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(c.out, answer.Body); err != nil {
		return brokeOff(id, err)
	}
	return nil
}

// brokeOff is that logs ended before they were complete.
func brokeOff(id string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the logs of Machine %s broke off: the agent stopped; try again when it is back", id)
	}
	return fmt.Errorf("the logs of Machine %s broke off: %w", id, err)
}
