package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/agent"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/cmd/sixpn/internal/doctor"
)

func doctorCommand(c *cli) *cobra.Command {
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps the router from working on this host",
		Long: `Look over the host, and the agent if one runs, and say of each thing whether it is
ok, and if not what to do. Nothing is changed. Its flags are those of the agent that
is meant.

Of every other host of the fleet, all tried at the same time: whether packets pass through
the mesh, and which way if only one; whether the largest packets of Machines do; how far
apart the clocks are; and what its agent says. Of the store: each of its members, and
whether it could lose one more. A host that does not answer takes up to ten seconds.

Exit code 1 if anything fails, 0 if there are but warnings.`,
		Example: `  sixpn doctor
  sixpn doctor --name edge --json
  sixpn doctor --clock-tolerance 100ms`,
		Args: cobra.NoArgs,
	}
	sources := agent.AddFlags(command.Flags())
	tolerance := command.Flags().Duration("clock-tolerance", doctor.DefaultClockTolerance, "how far the clock of another host may be from this one's")
	command.RunE = func(command *cobra.Command, _ []string) error {
		c.running = true
		if err := c.agentName(command); err != nil {
			return err
		}
		loaded, err := sources.Load()
		if err != nil {
			return configError(err)
		}
		if *tolerance <= 0 {
			return usagef("--clock-tolerance is %v: expected a duration above 0 such as 1s", *tolerance)
		}
		return c.examine(command.Context(), loaded.Config, *tolerance)
	}
	return command
}

func (c *cli) examine(ctx context.Context, config agent.Config, clockTolerance time.Duration) error {
	socket := c.socket
	if config.Name == api.DefaultName {
		socket = cmp.Or(socket, os.Getenv("SIXPN_SOCKET"))
	}
	client, err := api.NewSocketClient(cmp.Or(socket, filepath.Join(config.RunDir, config.Name+".sock")), 0)
	if err != nil {
		return err
	}
	findings := doctor.Examine(ctx, doctor.Config{
		Name: config.Name, StateDir: config.StateDir, RunDir: config.RunDir, PinDir: config.PinDir,
		MetricsListen: config.MetricsListen, Upstreams: config.Upstreams, Client: client, Euid: os.Geteuid(), ClockTolerance: clockTolerance,
	})
	if err := c.printFindings(findings); err != nil {
		return err
	}
	for _, finding := range findings {
		if finding.Status == doctor.Fail {
			return exitCode(exitFailed)
		}
	}
	return nil
}

func (c *cli) printFindings(findings []doctor.Finding) error {
	if c.json {
		return c.printJSON(findings)
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for _, finding := range findings {
		line := fmt.Sprintf("%s\t%s\t%s", finding.Status, strings.TrimSpace(finding.Check+" "+finding.Host), finding.Message)
		if finding.Remedy != "" {
			line += ": " + finding.Remedy
		}
		fmt.Fprintln(w, line)
	}
	return w.Flush()
}
