package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"unicode/utf8"

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
one argument that is split into words; the words after -- are taken as they are.

What this command reads goes to the command inside only with --stdin: a script would
otherwise lose the rest of itself to the first command that it runs this way.`,
		Example: `  sixpn machine exec 148e21dad76789 'ping -c 1 db.internal'
  sixpn machine exec 148e21dad76789 -- sh -c 'echo $FLY_REGION'
  echo hello | sixpn machine exec --stdin 148e21dad76789 -- tee /tmp/greeting`,
		Args: func(command *cobra.Command, args []string) error {
			switch dash := command.ArgsLenAtDash(); {
			case dash == 1 && len(args) > 1, dash < 0 && len(args) == 2:
				return nil
			}
			return usagef("expected a Machine's id and a command: either one argument, or words after --")
		},
	}
	flags := command.Flags()
	anyAppFlag(command, &app)
	flags.IntVar(&timeout, "timeout", 0, "seconds until it is killed, 0 for never")
	flags.BoolVarP(&stdin, "stdin", "i", false, "give it what this command reads")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		request := api.ExecRequest{Timeout: timeout}
		if command.ArgsLenAtDash() < 0 {
			request.Cmd = args[1]
		} else {
			request.Command = args[1:]
		}
		var input []byte
		if stdin {
			var err error
			if input, err = io.ReadAll(c.in); err != nil {
				return fmt.Errorf("read the standard input: %w", err)
			}
		}
		// JSON can carry only text: what is none goes in base64. Programs that read
		// our JSON get text as long as that is possible.
		request.Stdin = string(input)
		if !c.json || !utf8.Valid(input) {
			request.Encoding, request.Stdin = encodingBase64, base64.StdEncoding.EncodeToString(input)
		}
		app, _, err := find(ctx, client, app, args[0])
		if err != nil {
			return err
		}
		answer, err := client.ExecMachineWithResponse(ctx, app, args[0], request)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if err := c.printExec(*answer.JSON200); err != nil {
			return err
		}
		if unread := !stdin && answer.JSON200.Stdout == "" && pipeHasData(c.in); unread {
			fmt.Fprintln(c.err, "Warning: the command was given no input, though some is piped in; give it with --stdin (-i)")
		}
		if code := answer.JSON200.ExitCode; code != 0 {
			return exitCode(code)
		}
		return nil
	})
}

// encodingBase64 is the encoding of an ExecRequest that holds any bytes.
const encodingBase64 = "base64"

func (c *cli) printExec(result api.ExecResult) error {
	if c.json {
		return c.printJSON(result)
	}
	for _, stream := range []struct {
		to   io.Writer
		text string
	}{{c.out, result.Stdout}, {c.err, result.Stderr}} {
		bytes := []byte(stream.text)
		if result.Encoding == encodingBase64 {
			var err error
			if bytes, err = base64.StdEncoding.DecodeString(stream.text); err != nil {
				return fmt.Errorf("the agent's answer cannot be read: %w", err)
			}
		}
		if _, err := stream.to.Write(bytes); err != nil {
			return err
		}
	}
	if result.Truncated {
		fmt.Fprintln(c.err, "Warning: the command wrote more than this; the rest is lost")
	}
	return nil
}
