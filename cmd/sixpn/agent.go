package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/agent"
)

func agentCommand(c *cli) *cobra.Command {
	var sources *agent.Sources
	var check bool
	var reference string
	command := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of this host, or remove what one made",
		Long: `Run the agent: it holds the state, runs Machines, and keeps the eBPF router as the
state wants it. It logs to standard error, and is ready when its socket answers.

Each setting is a flag, an environment variable and a key of a YAML file, the first
of which counts: --mtu, SIXPN_AGENT_MTU, mtu. The file is /etc/sixpn/NAME.yaml if it
exists, or the one that --config names. --check-config shows what is in force and who
said so. A SIGHUP takes up another log level, and says what waits for a restart.

When it ends, by whatever signal, the router and the Machines go on; the next
agent of the same name takes them over. --detach-on-exit and "sixpn agent reset"
remove them.`,
		Example: `  sixpn agent
  sixpn agent --name edge --region fra --log-format json
  sixpn agent --config edge.yaml --check-config`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c.running = true
			if reference != "" {
				return writeConfigReference(reference)
			}
			if err := c.agentName(command); err != nil {
				return err
			}
			if check {
				return c.checkConfig(sources)
			}
			return configError(sources.Run(command.Context(), c.err, func(config *agent.Config) {
				config.Version = version()
				name := config.Name
				config.Ready = func(socket string) { fmt.Fprintf(c.err, "ready: sixpn agent %q on %s\n", name, socket) }
			}))
		},
	}
	sources = agent.AddFlags(command.Flags())
	command.Flags().BoolVar(&check, "check-config", false, "only check the configuration, and print what is in force and where it comes from")
	command.Flags().StringVar(&reference, "print-reference", "", "write the reference of the configuration to a `FILE`")
	_ = command.Flags().MarkHidden("print-reference")
	command.AddCommand(agentResetCommand(c))
	return command
}

func agentResetCommand(c *cli) *cobra.Command {
	var sources *agent.Sources
	var withState bool
	command := &cobra.Command{
		Use:   "reset",
		Short: "Stop the Machines and remove everything that an agent made",
		Long: `Stop the Machines of an agent that does not run any more, and remove its devices,
programs, tables, namespaces, cgroups and run files. The state directory stays,
unless --state is given. The agent's configuration file says where these are, as it
does to the agent.`,
		Example: `  sixpn agent reset
  sixpn agent reset --name edge --state`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c.running = true
			if err := c.agentName(command); err != nil {
				return err
			}
			removed, err := sources.Reset(command.Context(), c.err, withState)
			err = configError(err)
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
	sources = agent.AddPlaces(command.Flags())
	command.Flags().BoolVar(&withState, "state", false, "remove the state directory too")
	return command
}

// checkConfig prints what is in force and who said so.
func (c *cli) checkConfig(sources *agent.Sources) error {
	loaded, err := sources.Load()
	if err != nil {
		return configError(err)
	}
	if c.json {
		return c.printJSON(map[string]any{"file": loaded.File, "settings": loaded.Settings})
	}
	var rows [][]string
	for _, s := range loaded.Settings {
		rows = append(rows, []string{s.Key, s.Value, s.From})
	}
	return c.table("SETTING,VALUE,FROM", rows)
}

// configError is a setting that is wrong: the exit code is that of wrong usage.
func configError(err error) error {
	if wrong := (*agent.ConfigError)(nil); errors.As(err, &wrong) {
		return usagef("%v", err)
	}
	return err
}

//go:generate go run . agent --print-reference ../../docs/configuration.md

func writeConfigReference(path string) error {
	var page bytes.Buffer
	agent.WriteReference(&page)
	return os.WriteFile(path, page.Bytes(), 0o644)
}

// agentName lets "sixpn --name x agent" mean what it says.
func (c *cli) agentName(command *cobra.Command) error {
	if root := command.Root().PersistentFlags(); !root.Changed("name") || command.Flags().Changed("name") {
		return nil
	}
	if err := command.Flags().Set("name", c.name); err != nil {
		return usagef("%v", err)
	}
	return nil
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
