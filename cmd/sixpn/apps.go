package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func appsCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "apps",
		Aliases: []string{"app"},
		Short:   "Names for sets of Machines",
		Example: "  sixpn apps create web --org acme\n  sixpn apps list",
	}, appsCreate(c), appsList(c), appsShow(c), appsMove(c), appsDestroy(c))
}

func appsCreate(c *cli) *cobra.Command {
	var org, network string
	command := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create an app",
		Example: "  sixpn apps create web --org acme\n  sixpn apps create lab --org acme --network test",
		Args:    cobra.ExactArgs(1),
	}
	orgFlag(command, &org)
	command.Flags().StringVar(&network, "network", "", "network of the org (default its default one)")
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		org, err := orgOr(ctx, client, org)
		if err != nil {
			return err
		}
		answer, err := client.CreateAppWithResponse(ctx, &api.CreateAppParams{Wait: c.until()},
			api.CreateAppRequest{Name: args[0], OrgSlug: org, Network: network})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON201)
		}
		fmt.Fprintf(c.out, "Created app %s in org %s, network %s\n", answer.JSON201.Name, org, answer.JSON201.Network)
		return nil
	})
}

func appsList(c *cli) *cobra.Command {
	var org string
	command := c.verb(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List apps",
		Example: "  sixpn apps list\n  sixpn apps list --org acme --json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		answer, err := client.ListAppsWithResponse(ctx, &api.ListAppsParams{OrgSlug: org})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200.Apps)
		}
		var rows [][]string
		for _, app := range answer.JSON200.Apps {
			rows = append(rows, []string{app.Name, app.Organization.Slug, app.Network, app.Status, fmt.Sprint(app.MachineCount)})
		}
		return c.table("NAME,OWNER,NETWORK,STATUS,MACHINES", rows)
	})
	command.Flags().StringVarP(&org, "org", "o", "", "only those of this org")
	return command
}
