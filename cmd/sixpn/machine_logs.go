package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineLogs(c *cli) *cobra.Command {
	var app string
	var follow bool
	command := c.verb(&cobra.Command{
		Use:   "logs ID",
		Short: "Show what a Machine wrote to its standard output and error",
		Long: `Show what a Machine wrote to its standard output and error. With --follow go on with
what it writes, also after a restart of the agent or of that of the Machine's host, until
the Machine has ended.`,
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
	if follow {
		return c.follow(ctx, client, app, id, &logPlace{}, func(piece []byte) error {
			_, err := c.out.Write(piece)
			return err
		})
	}
	// The generated method with "WithResponse" would read to the end first.
	answer, err := client.MachineLogs(ctx, app, id, &api.MachineLogsParams{})
	if err := api.CheckResponse(answer, err); err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(c.out, answer.Body); err != nil {
		return brokeOff(id, err)
	}
	return nil
}
