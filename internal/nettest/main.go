package nettest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/sixpn/sixpn/agent"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/wireguard"
)

// Main must be the first call of a test program that makes hosts: the program
// starts itself again as agent, supervisor, init, engine of the mesh, and payload.
// In those it does their work and never returns; else it returns false at once.
func Main() bool {
	if machine.Main() || wireguard.Main() || payload.Main() {
		return true
	}
	if len(os.Args) < 2 || os.Args[1] != "agent" {
		return false
	}
	err := agentMain(os.Args[2:])
	if wrong := (*agent.ConfigError)(nil); errors.As(err, &wrong) {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	os.Exit(0)
	return true
}

// agentMain is "sixpn agent" and "sixpn agent reset", with the same flags.
func agentMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	set := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	if len(args) > 0 && args[0] == "reset" {
		sources := agent.AddPlaces(set)
		withState := set.Bool("state", false, "")
		if err := set.Parse(args[1:]); err != nil {
			return err
		}
		removed, err := sources.Reset(ctx, os.Stderr, *withState)
		for _, what := range removed {
			fmt.Println("removed", what)
		}
		return err
	}
	sources := agent.AddFlags(set)
	ahead := set.Duration("clock-ahead", 0, "of the clock that other hosts see")
	if err := set.Parse(args); err != nil {
		return &agent.ConfigError{Key: "flags", Message: err.Error()}
	}
	return sources.Run(ctx, os.Stderr, func(c *agent.Config) {
		c.Version = "test"
		c.Clock = func() time.Time { return time.Now().Add(*ahead) }
	})
}
