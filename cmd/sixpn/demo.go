package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/demo"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

func demoCommand(c *cli) *cobra.Command {
	config := demo.Config{Out: c.out}
	command := &cobra.Command{
		Use:   "demo",
		Short: "Build a small world and prove with real traffic what sixpn promises",
		Long: `Build a world of its own here, two hosts in two regions, two orgs with their apps,
Machines and Flycast addresses, prove each claim with real traffic from inside the
Machines, and remove it again. It needs root, and touches nothing else on this host.

The exit code is 0 only if every check holds. With --json each check is one object
a line: {"check","ok","detail"}.`,
		Example: `  sixpn demo
  sixpn demo --json | jq -r 'select(.ok | not)'
  sixpn demo --keep`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c.running = true
			config.JSON = c.json
			err := demo.Run(command.Context(), config)
			if errors.Is(err, demo.ErrFailed) {
				return exitCode(exitFailed)
			}
			return err
		},
	}
	command.Flags().BoolVar(&config.Keep, "keep", false, "leave the world up, and say how to look around")
	return command
}

// helperCommand is what the demo runs inside its Machines.
func helperCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:                payload.Name,
		Hidden:             true,
		DisableFlagParsing: true,
		Short:              "What runs inside the Machines of the demo",
		Example:            "  sixpn " + payload.Name + " serve -tcp 8080",
		RunE: func(_ *cobra.Command, args []string) error {
			c.running = true
			return payload.Run(args)
		},
	}
}
