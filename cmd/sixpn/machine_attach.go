package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineAttach(c *cli) *cobra.Command {
	var f runFlags
	var attach api.Attach
	command := &cobra.Command{
		Use:   "attach -a APP {--device NAME | --netns PATH | --pid N}",
		Short: "Make a Machine of what something else runs",
		Long: `Make a Machine of what something else runs: a virtual machine behind an existing tap
or veth, or a network namespace, which gets an eth0 that is set up. It has an address,
names and Flycast as any other Machine. A guest behind a device sets itself up: the
address that this command prints, with /112, a route to fdaa::/16 by fe80::1, and the
name server fdaa::3.`,
		Example: `  sixpn machine attach -a desktop --device tap0 --mac 02:00:00:00:00:01 -p 22:22
  sixpn machine attach -a container --netns /run/netns/blue
  sixpn machine attach -a process --pid 4711
  sixpn machine attach -a desktop --device tap0 --host two`,
		Args: cobra.NoArgs,
	}
	f.flags(command)
	flags := command.Flags()
	flags.StringVar(&attach.Device, "device", "", "existing tap or veth of the agent's network namespace")
	flags.StringVar(&attach.Netns, "netns", "", "path of a network namespace")
	flags.IntVar(&attach.Pid, "pid", 0, "process in the network namespace that is meant")
	flags.StringVar(&f.host, "host", "", `host that it is on, see "sixpn hosts list" (default this one)`)
	flags.StringVar(&attach.Mac, "mac", "", "MAC address of the guest behind --device (default found out)")
	command.MarkFlagsOneRequired("device", "netns", "pid")
	command.MarkFlagsMutuallyExclusive("device", "netns", "pid")
	command.MarkFlagsMutuallyExclusive("mac", "netns")
	command.MarkFlagsMutuallyExclusive("mac", "pid")
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		m, err := f.create(ctx, c, client, command, nil, func(config *api.MachineConfig) { config.Attach = &attach })
		if err != nil {
			return err
		}
		return c.runDetached(ctx, client, f, m)
	})
}

func machineDetach(c *cli) *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:   "detach ID...",
		Short: "Take what was attached out of the network, and remove its Machine",
		Long: `Take what was attached out of the network, and remove its Machine. What runs there
goes on, and a device that existed before stays.`,
		Example: "  sixpn machine detach 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	t.flags(command)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		for _, id := range args {
			_, m, err := find(ctx, client, t.app, id)
			if err != nil {
				return err
			}
			if m.Config.Attach == nil {
				return fmt.Errorf("Machine %s runs a command, nothing is attached; use: sixpn machine destroy %s", id, id)
			}
		}
		return c.each(ctx, client, t, args, api.WaitMachineParamsStateDestroyed, func(app, id string) error {
			return api.Check(client.DestroyMachineWithResponse(ctx, app, id, &api.DestroyMachineParams{Wait: c.until(), Force: true}))
		})
	})
}
