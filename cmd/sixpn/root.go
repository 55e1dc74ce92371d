package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
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

// pollInterval is between two looks at what the agent cannot wait for.
const pollInterval = 200 * time.Millisecond

// cli is one run of the command line.
type cli struct {
	in       io.Reader
	out, err io.Writer

	socket, name string        // which agent
	patience     time.Duration // with an agent that does not listen yet
	poll         time.Duration // between two looks at what the agent cannot wait for
	json         bool
	wait         bool // for the kernel and DNS, see change
	running      bool // arguments were right, the command itself has begun

	saying sync.Mutex // of err, for what several goroutines say
}

// run is the whole command line: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	c := &cli{in: in, out: out, err: errs, poll: pollInterval}
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
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted // who pressed ctrl-C knows
	case errors.As(err, &usage) || !c.running:
		fmt.Fprintf(errs, "Error: %v\nUsage: %s\nRun '%s --help' for more.\n", err, command.UseLine(), command.CommandPath())
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
		agentCommand(c), orgsCommand(c), networksCommand(c), appsCommand(c), machineCommand(c), ipsCommand(c),
		hostsCommand(c), storeCommand(c), platformCommand(c), statusCommand(c), logsCommand(c), referenceCommand(c),
		deployCommand(c), scaleCommand(c), digCommand(c), pingCommand(c), doctorCommand(c),
		demoCommand(c), benchCommand(c), versionCommand(c), helperCommand(c),
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
	flags.DurationVar(&c.patience, "wait-agent", 15*time.Second, "how long to wait for an agent that is only starting")
	flags.BoolVarP(&c.json, "json", "j", false, "print JSON, for programs")
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		if command.Name() == "completion" {
			command.Example = "  source <(sixpn completion bash)"
		}
	}
	c.complete(root)
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
		return explainLease(do(command.Context(), client, args))
	}
	return command
}

// change is a verb that changes something: with --wait it is done when the kernel
// and DNS have it.
func (c *cli) change(command *cobra.Command, do func(ctx context.Context, client *api.ClientWithResponses, args []string) error) *cobra.Command {
	if command.Flags().Lookup("wait") == nil {
		waitFlag(command, false)
	}
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		var err error
		if c.wait, err = command.Flags().GetBool("wait"); err != nil {
			return err
		}
		return do(ctx, client, args)
	})
}

// explainLease says what to do when somebody else's lease is in the way.
func explainLease(err error) error {
	var answered *api.Error
	if errors.As(err, &answered) && answered.Code == http.StatusConflict && answered.Failure.Field == "fly-machine-lease-nonce" {
		return fmt.Errorf("%w; look at it and end it with: sixpn machine leases", err)
	}
	return err
}

func waitFlag(command *cobra.Command, byDefault bool) {
	command.Flags().Bool("wait", byDefault, "return when the kernel and DNS have it")
}

// until is what a change waits for.
func (c *cli) until() api.WaitFor {
	if c.wait {
		return api.WaitForApplied
	}
	return ""
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
