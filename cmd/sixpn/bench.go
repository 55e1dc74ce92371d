package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sixpn/sixpn/bench"
)

func benchCommand(c *cli) *cobra.Command {
	var quick, benchmarks bool
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure the packet path beside its baselines",
		Long: `Measure what the router costs: its programs alone beside an empty program, live
frames beside plain IPv6 routing and nftables, TCP beside plain routing, a bridge
and itself without a VIP. Value and baseline of a line come from the same run,
taken in turns. It needs root, talks to no agent and leaves nothing behind.`,
		Example: `  sixpn bench --quick
  sixpn bench --json
  sixpn bench --benchmarks > after.txt && benchstat -col /side after.txt`,
		Args: cobra.NoArgs,
	}
	command.RunE = func(command *cobra.Command, _ []string) error {
		c.running = true
		config := bench.Config{Quick: quick}
		done := func() {}
		if file, ok := c.err.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			config.Progress = func(what string) { fmt.Fprintf(file, "\r\033[Kmeasuring %s", what) }
			done = func() { fmt.Fprint(file, "\r\033[K") }
		}
		results, err := bench.Run(command.Context(), config)
		done()
		if err != nil {
			return err
		}
		switch {
		case c.json:
			return bench.WriteJSON(c.out, results)
		case benchmarks:
			return bench.WriteBenchmarks(c.out, results)
		default:
			return bench.WriteTable(c.out, results)
		}
	}
	command.Flags().BoolVar(&quick, "quick", false, "under a minute, with the fewest rounds that say something")
	command.Flags().BoolVar(&benchmarks, "benchmarks", false, "print every round in Go's benchmark format, for benchstat")
	return command
}
