// Package payload is what runs inside the Machines of demos and tests: servers
// and probes that speak one small protocol, so that a Machine needs nothing but
// the binary that it was made with.
//
// A server greets a TCP connection with one line, "<machine id> <client>\n", and
// echoes every byte after it. It answers a datagram with "<machine id> " and the
// datagram. A probe prints one JSON object and exits 0, whatever it saw: what it
// saw is for the caller to judge.
package payload

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Name is the command that a binary with payloads answers to: "sixpn NAME serve …".
const Name = "demo-helper"

// patience is how long an answer may be under way before it counts as lost, unless the
// caller says otherwise: a machine that is busy is not one that loses packets.
const patience = 12 * time.Second

// payloads by name.
var payloads = map[string]func(ctx context.Context, args []string, out io.Writer) error{
	"serve":       serve,
	"idle":        idle,
	"connect":     connect,
	"hold":        hold,
	"datagrams":   datagrams,
	"ping":        ping,
	"lookup":      lookup,
	"pipeline":    pipeline,
	"web":         web,
	"environment": environment,
	"path-mtu":    pathMTU,
	"traffic":     traffic,
	"touch":       touch,
	"touch-host":  touchHost,
}

// Names lists the payloads.
func Names() []string {
	names := make([]string, 0, len(payloads))
	for name := range payloads {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Main runs the payload that the command line asks for, as "NAME PAYLOAD …", and
// ends the process; it returns false at once when it asks for none.
func Main() bool {
	if len(os.Args) < 2 || os.Args[1] != Name {
		return false
	}
	if err := Run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

// Run runs one payload until it ends or the process gets SIGTERM.
func Run(args []string) error {
	if len(args) == 0 || payloads[args[0]] == nil {
		return fmt.Errorf("%s: expected one of %s", Name, strings.Join(Names(), ", "))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := payloads[args[0]](ctx, args[1:], os.Stdout); err != nil {
		return fmt.Errorf("%s %s: %w", Name, args[0], err)
	}
	return nil
}

// idle does nothing until it is told to end.
func idle(ctx context.Context, _ []string, _ io.Writer) error {
	<-ctx.Done()
	return nil
}

// touch makes an empty file: another payload may wait for it.
func touch(_ context.Context, args []string, _ io.Writer) error {
	rest, err := flags(args, 1, "PATH", func(*flag.FlagSet) {})
	if err != nil {
		return err
	}
	return os.WriteFile(rest[0], nil, 0o600)
}

// flags parses a payload's own flags, and returns what is left of the arguments.
func flags(args []string, want int, what string, define func(*flag.FlagSet)) ([]string, error) {
	set := flag.NewFlagSet(what, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	define(set)
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() != want {
		return nil, fmt.Errorf("got the arguments %q, expected %s", set.Args(), what)
	}
	return set.Args(), nil
}

func report(out io.Writer, result any) error { return json.NewEncoder(out).Encode(result) }
