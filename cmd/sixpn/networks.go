package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func networksCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "networks",
		Aliases: []string{"network"},
		Short:   "Networks of an org, each isolated from all others",
		Example: "  sixpn networks create staging --org acme\n  sixpn apps create lab --org acme --network staging",
	}, networksCreate(c), networksList(c), networksDelete(c))
}

func networksCreate(c *cli) *cobra.Command {
	var org string
	command := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create another network of an org",
		Example: "  sixpn networks create staging --org acme",
		Args:    cobra.ExactArgs(1),
	}
	orgFlag(command, &org)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		org, err := orgOr(ctx, client, org)
		if err != nil {
			return err
		}
		answer, err := client.CreateNetworkWithResponse(ctx, org, &api.CreateNetworkParams{Wait: c.until()}, api.CreateNetworkRequest{Name: args[0]})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON201)
		}
		fmt.Fprintf(c.out, "Created network %s %s of org %s\n", answer.JSON201.Name, answer.JSON201.Prefix, org)
		return nil
	})
}

func networksList(c *cli) *cobra.Command {
	var org string
	command := c.verb(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the networks of an org",
		Example: "  sixpn networks list --org acme",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		org, err := orgOr(ctx, client, org)
		if err != nil {
			return err
		}
		answer, err := client.ListNetworksWithResponse(ctx, org)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200.Networks)
		}
		return c.table(networkHeader, networkRows(answer.JSON200.Networks))
	})
	orgFlag(command, &org)
	return command
}

const networkHeader = "NETWORK,PREFIX,CREATED"

func networkRows(networks []api.Network) [][]string {
	var rows [][]string
	for _, n := range networks {
		rows = append(rows, []string{n.Name, n.Prefix, ago(n.CreatedAt)})
	}
	return rows
}

func networksDelete(c *cli) *cobra.Command {
	var org string
	command := &cobra.Command{
		Use:   "delete NETWORK",
		Short: "Delete a network",
		Long: `Delete a network. The default one is refused, and one that has an app or a Flycast
address. The number in its addresses is never used again.`,
		Example: "  sixpn networks delete staging --org acme",
		Args:    cobra.ExactArgs(1),
	}
	orgFlag(command, &org)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		org, err := orgOr(ctx, client, org)
		if err != nil {
			return err
		}
		answer, err := client.DeleteNetworkWithResponse(ctx, org, args[0], &api.DeleteNetworkParams{Wait: c.until()})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		fmt.Fprintf(c.out, "Deleted network %s of org %s\n", args[0], org)
		return nil
	})
}

// orgFlag is the flag of commands that need an org and can guess it.
func orgFlag(command *cobra.Command, org *string) {
	command.Flags().StringVarP(org, "org", "o", "", "org (default the only one, if there is one)")
}

// orgOr is the org that was named, or the only one there is.
func orgOr(ctx context.Context, client *api.ClientWithResponses, org string) (string, error) {
	if org != "" {
		return org, nil
	}
	answer, err := client.ListOrgsWithResponse(ctx)
	if err := api.Check(answer, err); err != nil {
		return "", err
	}
	switch orgs := answer.JSON200.Organizations; len(orgs) {
	case 0:
		return "", fmt.Errorf("there is no org yet; create one with: sixpn orgs create acme")
	case 1:
		return orgs[0].Slug, nil
	default:
		return "", usagef("there are %d orgs, say which one with --org; list them with: sixpn orgs list", len(orgs))
	}
}
