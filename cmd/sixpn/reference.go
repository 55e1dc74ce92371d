package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

//go:generate go run . reference ../../docs/commands.md

// referenceCommand writes docs/commands.md.
func referenceCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "reference FILE",
		Hidden:  true,
		Short:   "Write the reference of all commands",
		Example: "  sixpn reference docs/commands.md",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			c.running = true
			var page bytes.Buffer
			writeReference(&page, command.Root())
			return os.WriteFile(args[0], page.Bytes(), 0o644)
		},
	}
}

func writeReference(w io.Writer, root *cobra.Command) {
	fmt.Fprint(w, "# Commands\n\n<!-- Made from the program by \"make generate\"; change it there. -->\n\n")
	fmt.Fprintf(w, "%s\n\n", root.Long)
	fmt.Fprintf(w, "Every command takes these:\n\n```text\n%s```\n", root.PersistentFlags().FlagUsages())
	var commands []*cobra.Command
	var collect func(*cobra.Command)
	collect = func(parent *cobra.Command) {
		for _, command := range parent.Commands() {
			// The shells' own completion commands differ only in the shell.
			if command.Hidden || command.Name() == "help" || parent.Name() == "completion" {
				continue
			}
			commands = append(commands, command)
			collect(command)
		}
	}
	collect(root)
	fmt.Fprint(w, "\n| command | |\n|---|---|\n")
	for _, command := range commands {
		fmt.Fprintf(w, "| [%s](#%s) | %s |\n", command.CommandPath(), anchor(command), command.Short)
	}
	for _, command := range commands {
		writeCommand(w, command)
	}
}

func anchor(command *cobra.Command) string {
	return strings.ReplaceAll(command.CommandPath(), " ", "-")
}

func writeCommand(w io.Writer, command *cobra.Command) {
	fmt.Fprintf(w, "\n## %s\n\n", command.CommandPath())
	text := command.Long
	if text == "" {
		text = command.Short + "."
	}
	fmt.Fprintf(w, "%s\n\n```text\n%s\n```\n", strings.TrimSpace(text), command.UseLine())
	if len(command.Aliases) > 0 {
		fmt.Fprintf(w, "\nAlso: `%s`.\n", strings.Join(command.Aliases, "`, `"))
	}
	command.InitDefaultHelpFlag()
	flags := command.NonInheritedFlags()
	help := flags.Lookup("help")
	help.Hidden = true // the same everywhere
	if flags.HasAvailableFlags() {
		fmt.Fprintf(w, "\n```text\n%s```\n", flags.FlagUsages())
	}
	help.Hidden = false
	if command.Example != "" {
		fmt.Fprintf(w, "\n```sh\n%s\n```\n", unindent(command.Example))
	}
}

// unindent takes away what sets an example off in a help text.
func unindent(example string) string {
	lines := strings.Split(example, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}
