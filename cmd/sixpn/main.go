// Command sixpn is the agent, and the command line that talks to it.
//
// Each file is one noun of the command line; root.go is what they share.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/wireguard"
)

func main() {
	// The agent starts this binary again as supervisors and inits of Machines, and as
	// the engine of the mesh.
	if machine.Main() || wireguard.Main() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
