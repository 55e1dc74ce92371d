package nettest

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sixpn/sixpn/agent"
	"github.com/sixpn/sixpn/internal/nettest/payload"
	"github.com/sixpn/sixpn/machine"
)

// Main must be the first call of a test program that makes hosts: the program
// starts itself again as agent, supervisor, init and payload. In those it does
// their work and never returns; else it returns false at once.
func Main() bool {
	if machine.Main() || payload.Main() {
		return true
	}
	if len(os.Args) < 2 || os.Args[1] != "agent" {
		return false
	}
	if err := agentMain(os.Args[2:]); err != nil {
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
	var config agent.Config
	var logging agent.Logging
	set := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	agent.AddLogging(set, &logging)
	if len(args) > 0 && args[0] == "reset" {
		agent.AddPlaces(set, &config)
		withState := set.Bool("state", false, "")
		if err := set.Parse(args[1:]); err != nil {
			return err
		}
		log, err := logging.New(os.Stderr)
		if err != nil {
			return err
		}
		config.Log = log
		removed, err := agent.Reset(ctx, config, *withState)
		for _, what := range removed {
			fmt.Println("removed", what)
		}
		return err
	}
	agent.AddFlags(set, &config)
	if err := set.Parse(args); err != nil {
		return err
	}
	log, err := logging.New(os.Stderr)
	if err != nil {
		return err
	}
	config.Log, config.Version = log, "test"
	return agent.Run(ctx, config)
}
