package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineExec(c *cli) *cobra.Command {
	var app string
	var timeout int
	var stdin bool
	command := &cobra.Command{
		Use:   "exec ID {COMMAND | -- CMD...}",
		Short: "Run a command inside a Machine",
		Long: `Run a command inside a started Machine and exit with its exit code. COMMAND is
one argument that is split into words; the words after -- are taken as they are.`,
		Example: "  sixpn machine exec 148e21dad76789 'ping -c 1 db.internal'\n  sixpn machine exec 148e21dad76789 -- sh -c 'echo $FLY_REGION'",
		Args: func(command *cobra.Command, args []string) error {
			switch dash := command.ArgsLenAtDash(); {
			case dash == 1 && len(args) > 1, dash < 0 && len(args) == 2:
				return nil
			}
			return usagef("expected a Machine's id and a command: either one argument, or words after --")
		},
	}
	flags := command.Flags()
	flags.StringVarP(&app, "app", "a", "", "app of the Machine (default look in all)")
	flags.IntVar(&timeout, "timeout", 0, "seconds until it is killed, 0 for never")
	flags.BoolVarP(&stdin, "stdin", "i", false, "give it what this command reads")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		request := api.ExecRequest{Timeout: timeout}
		if command.ArgsLenAtDash() < 0 {
			request.Cmd = args[1]
		} else {
			request.Command = args[1:]
		}
		if stdin {
			read, err := io.ReadAll(c.in)
			if err != nil {
				return fmt.Errorf("read the standard input: %w", err)
			}
			request.Stdin = string(read)
		}
		app, _, err := find(ctx, client, app, args[0])
		if err != nil {
			return err
		}
		answer, err := client.ExecMachineWithResponse(ctx, app, args[0], request)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		result := answer.JSON200
		if c.json {
			if err := c.printJSON(result); err != nil {
				return err
			}
		} else {
			fmt.Fprint(c.out, result.Stdout)
			fmt.Fprint(c.err, result.Stderr)
			if result.Truncated {
				fmt.Fprintln(c.err, "Warning: the command wrote more than this; the rest is lost")
			}
		}
		if result.ExitCode != 0 {
			return exitCode(result.ExitCode)
		}
		return nil
	})
}

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
	command.Flags().StringVarP(&app, "app", "a", "", "app of the Machine (default look in all)")
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
		return fmt.Errorf("the logs of Machine %s broke off: %w", id, err)
	}
	return nil
}
