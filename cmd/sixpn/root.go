package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

// Exit codes. A command that stands for another one (machine run, exec) exits
// with that one's.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// cli is one run of the command line.
type cli struct {
	in       io.Reader
	out, err io.Writer

	socket, name string        // which agent
	patience     time.Duration // with an agent that does not listen yet
	json         bool
	running      bool // arguments were right, the command itself has begun
}

// run is the whole command line: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	c := &cli{in: in, out: out, err: errs}
	root := newRoot(c)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	var code exitCode
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage) || !c.running:
		fmt.Fprintf(errs, "Error: %v\nRun '%s --help' for usage.\n", err, command.CommandPath())
		return exitUsage
	}
	fmt.Fprintln(errs, "Error:", err)
	if ctx.Err() != nil {
		return exitInterrupted
	}
	return exitFailed
}

func newRoot(c *cli) *cobra.Command {
	root := c.noun(&cobra.Command{
		Use:   "sixpn",
		Short: "A router for private networks",
		Long: `sixpn gives each org an IPv6 network of its own, names in it and private
load-balanced addresses. One agent runs on a host; every other command talks to it.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  sixpn agent &
  sixpn orgs create acme
  sixpn apps create web --org acme
  sixpn machine run -a web -p 80:8080/tcp --detach -- python3 -m http.server --bind :: 8080
  sixpn ips allocate-v6 --private -a web
  sixpn status`,
	},
		agentCommand(c), orgsCommand(c), appsCommand(c), machineCommand(c), ipsCommand(c), statusCommand(c),
		demoCommand(c), benchCommand(c), helperCommand(c),
	)
	root.SilenceErrors = true
	root.SilenceUsage = true
	// "sixpn --name a machine run --name web1": the first is the agent's.
	root.TraverseChildren = true
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", "", "socket of the agent (default $SIXPN_SOCKET, else of the agent's name)")
	flags.StringVar(&c.name, "name", api.DefaultName, "name of the agent")
	flags.DurationVar(&c.patience, "wait-agent", 5*time.Second, "how long to wait for an agent that is only starting")
	flags.BoolVarP(&c.json, "json", "j", false, "print JSON, for programs")
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		if command.Name() == "completion" {
			command.Example = "  source <(sixpn completion bash)"
		}
	}
	return root
}

// noun is a command that only groups others. Without a verb it shows its help.
func (c *cli) noun(command *cobra.Command, verbs ...*cobra.Command) *cobra.Command {
	command.AddCommand(verbs...)
	command.SuggestionsMinimumDistance = 2
	command.Args = func(command *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		message := fmt.Sprintf("unknown command %q for %q", args[0], command.CommandPath())
		if near := command.SuggestionsFor(args[0]); len(near) > 0 {
			message += ", did you mean " + strings.Join(near, " or ") + "?"
		}
		return usagef("%s", message)
	}
	command.RunE = func(command *cobra.Command, _ []string) error { return command.Help() }
	return command
}

// verb is a command that does something with the agent.
func (c *cli) verb(command *cobra.Command, do func(ctx context.Context, client *api.ClientWithResponses, args []string) error) *cobra.Command {
	command.RunE = func(command *cobra.Command, args []string) error {
		c.running = true
		client, err := api.NewSocketClient(c.agentSocket(), c.patience)
		if err != nil {
			return err
		}
		return do(command.Context(), client, args)
	}
	return command
}

// agentSocket is the socket that the flags and the environment select.
func (c *cli) agentSocket() string {
	if c.socket == "" && c.name != api.DefaultName {
		return api.SocketPath(c.name)
	}
	return cmp.Or(c.socket, os.Getenv("SIXPN_SOCKET"), api.SocketPath(c.name))
}

// usageError is a mistake in the arguments that only the command itself can see.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitCode ends the command line with a code and no message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// printJSON is the answer of every command with --json.
func (c *cli) printJSON(v any) error {
	encoder := json.NewEncoder(c.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// table prints rows in columns, under a header.
func (c *cli) table(header string, rows [][]string) error {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(header, ",", "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// pairs prints names and values, leaving out what has no value.
func (c *cli) pairs(values ...string) error {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(values); i += 2 {
		if values[i+1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", values[i], values[i+1])
		}
	}
	return w.Flush()
}

// ago is how people say when something happened.
func ago(t time.Time) string {
	age := time.Since(t)
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		switch n := int(age / unit.length); {
		case n == 1:
			return "1 " + unit.name + " ago"
		case n > 1:
			return fmt.Sprintf("%d %ss ago", n, unit.name)
		}
	}
	return "just now"
}
