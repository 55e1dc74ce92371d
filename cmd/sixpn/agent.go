package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/agent"
)

func agentCommand(c *cli) *cobra.Command {
	var config agent.Config
	var logging agent.Logging
	command := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of this host, or remove what one made",
		Long: `Run the agent: it holds the state, runs Machines, and keeps the eBPF router as the
state wants it. It logs to standard error, and is ready when its socket answers.

When it ends, by whatever signal, the router and the Machines go on; the next
agent of the same name takes them over. --detach-on-exit and "sixpn agent reset"
remove them.`,
		Example: `  sixpn agent
  sixpn agent --name edge --region fra --log-format json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c.running = true
			log, err := logging.New(c.err)
			if err != nil {
				return usagef("%v", err)
			}
			config.Log, config.Version = log, version()
			c.agentName(command, &config)
			config.Ready = func(socket string) { fmt.Fprintf(c.err, "ready: sixpn agent %q on %s\n", config.Name, socket) }
			return agent.Run(command.Context(), config)
		},
	}
	agent.AddFlags(command.Flags(), &config)
	agent.AddLogging(command.Flags(), &logging)
	command.AddCommand(agentResetCommand(c))
	return command
}

func agentResetCommand(c *cli) *cobra.Command {
	var config agent.Config
	var logging agent.Logging
	var withState bool
	command := &cobra.Command{
		Use:   "reset",
		Short: "Stop the Machines and remove everything that an agent made",
		Long: `Stop the Machines of an agent that does not run any more, and remove its devices,
programs, tables, namespaces, cgroups and run files. The state directory stays,
unless --state is given.`,
		Example: `  sixpn agent reset
  sixpn agent reset --name edge --state`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c.running = true
			log, err := logging.New(c.err)
			if err != nil {
				return usagef("%v", err)
			}
			config.Log = log
			c.agentName(command, &config)
			removed, err := agent.Reset(command.Context(), config, withState)
			if c.json {
				if removed == nil {
					removed = []string{}
				}
				if printErr := c.printJSON(map[string][]string{"removed": removed}); err == nil {
					err = printErr
				}
				return err
			}
			for _, what := range removed {
				fmt.Fprintln(c.out, "removed", what)
			}
			if len(removed) == 0 && err == nil {
				fmt.Fprintln(c.out, "there was nothing to remove")
			}
			return err
		},
	}
	agent.AddPlaces(command.Flags(), &config)
	agent.AddLogging(command.Flags(), &logging)
	command.Flags().BoolVar(&withState, "state", false, "remove the state directory too")
	return command
}

// agentName lets "sixpn --name x agent" mean what it says.
func (c *cli) agentName(command *cobra.Command, config *agent.Config) {
	if !command.Flags().Changed("name") {
		config.Name = c.name
	}
}

// version is the module's version, or the commit that this was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return setting.Value[:12]
		}
	}
	return info.Main.Version
}
