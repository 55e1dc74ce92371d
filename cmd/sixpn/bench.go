package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sixpn/sixpn/bench"
)

func benchCommand(c *cli) *cobra.Command {
	var config bench.Config
	var benchmarks bool
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure the packet path, the mesh and the resolver beside their baselines",
		Long: `Measure what the router costs: its programs alone beside an empty program
(packet), live frames beside plain IPv6 routing and nftables (live), TCP beside
plain routing, a bridge and itself without a VIP (tcp), TCP between two hosts
beside plain WireGuard (mesh), how long a change takes to another host beside the
writer's own answer (propagation), what a host keeps and does as its fleet grows
(growth), and what a name costs beside CoreDNS, unbound and dnsmasq (dns). Value
and baseline of a line come from the same run, taken in turns. It needs root,
talks to no running agent and leaves nothing behind. "make bench" builds and
installs the name servers that dns needs.`,
		Example: `  sixpn bench --quick
  sixpn bench --only packet,tcp --json
  sixpn bench --benchmarks > after.txt && benchstat -col /side after.txt`,
		Args: cobra.NoArgs,
	}
	command.RunE = func(command *cobra.Command, _ []string) error {
		c.running = true
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
	command.Flags().BoolVar(&config.Quick, "quick", false, "about two minutes, with the fewest rounds that say something")
	command.Flags().StringSliceVar(&config.Only, "only", nil, "measure only these: "+strings.Join(bench.Subjects, ", "))
	command.Flags().StringVar(&config.CoreDNS, "coredns", "", "program of CoreDNS, a baseline of dns (default beside this program, or in PATH)")
	command.Flags().BoolVar(&benchmarks, "benchmarks", false, "print every round in Go's benchmark format, for benchstat")
	return command
}
