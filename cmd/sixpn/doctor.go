package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

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

Exit code 1 if anything fails, 0 if there are but warnings.`,
		Example: `  sixpn doctor
  sixpn doctor --name edge --json`,
		Args: cobra.NoArgs,
	}
	sources := agent.AddFlags(command.Flags())
	command.RunE = func(command *cobra.Command, _ []string) error {
		c.running = true
		if err := c.agentName(command); err != nil {
			return err
		}
		loaded, err := sources.Load()
		if err != nil {
			return configError(err)
		}
		return c.examine(command.Context(), loaded.Config)
	}
	return command
}

func (c *cli) examine(ctx context.Context, config agent.Config) error {
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
		MetricsListen: config.MetricsListen, Upstreams: config.Upstreams, Client: client, Euid: os.Geteuid(),
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
		line := fmt.Sprintf("%s\t%s\t%s", finding.Status, finding.Check, finding.Message)
		if finding.Remedy != "" {
			line += ": " + finding.Remedy
		}
		fmt.Fprintln(w, line)
	}
	return w.Flush()
}
