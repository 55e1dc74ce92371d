package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func appsMove(c *cli) *cobra.Command {
	var org, network string
	var yes bool
	var wait time.Duration
	command := &cobra.Command{
		Use:   "move APP",
		Short: "Move an app to another org or network",
		Long: `Move an app to another org, or to another network of its own. Its Machines get new
addresses there by the restart that this causes, and its Flycast addresses are
replaced by new ones. It is not reachable at the old addresses any more.`,
		Example: "  sixpn apps move web --org other --yes\n  sixpn apps move web --network staging --yes",
		Args:    cobra.ExactArgs(1),
	}
	flags := command.Flags()
	flags.StringVarP(&org, "org", "o", "", "org to move it to (default its own)")
	flags.StringVar(&network, "network", "", "network of that org (default its default one)")
	flags.DurationVarP(&wait, "wait-timeout", "w", settleTime, "how long to wait until its Machines have started again, 0 to not wait")
	yesFlag(command, &yes)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		name := args[0]
		if org == "" && network == "" {
			return usagef("where app %s is to go is not said, expected --org, --network or both", name)
		}
		question := fmt.Sprintf("Move app %s, which restarts its Machines with new addresses?", name)
		if err := c.confirm(yes, question); err != nil {
			return err
		}
		answer, err := client.MoveAppWithResponse(ctx, name, &api.MoveAppParams{Wait: c.until()}, api.MoveAppRequest{OrgSlug: org, Network: network})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if wait > 0 {
			if err := c.restarted(ctx, client, name, wait); err != nil {
				return err
			}
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		fmt.Fprintf(c.out, "Moved app %s to org %s, network %s\n", name, answer.JSON200.Organization.Slug, answer.JSON200.Network)
		return nil
	})
}

// restarted waits until those Machines of an app run that are to run.
func (c *cli) restarted(ctx context.Context, client *api.ClientWithResponses, app string, limit time.Duration) error {
	machines, err := client.ListMachinesWithResponse(ctx, app, &api.ListMachinesParams{})
	if err := api.Check(machines, err); err != nil {
		return err
	}
	for _, m := range *machines.JSON200 {
		if m.DesiredState != string(api.WaitMachineParamsStateStarted) {
			continue
		}
		if err := c.waitFor(ctx, client, app, m.ID, api.WaitMachineParamsStateStarted, limit); err != nil {
			return err
		}
	}
	return c.applied(ctx, client)
}
