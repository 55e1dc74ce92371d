package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func orgsCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "orgs",
		Aliases: []string{"org"},
		Short:   "Tenants, each with a network of its own",
		Example: "  sixpn orgs create acme\n  sixpn orgs list",
	}, orgsCreate(c), orgsList(c), orgsShow(c), orgsDelete(c))
}

func orgsCreate(c *cli) *cobra.Command {
	return c.change(&cobra.Command{
		Use:     "create SLUG",
		Short:   "Create an org and its default network",
		Example: "  sixpn orgs create acme",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		answer, err := client.CreateOrgWithResponse(ctx, &api.CreateOrgParams{Wait: c.until()}, api.CreateOrgRequest{Slug: args[0]})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON201)
		}
		fmt.Fprintf(c.out, "Created org %s with network %s\n", answer.JSON201.Slug, networksOf(*answer.JSON201))
		return nil
	})
}

func orgsList(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the orgs",
		Example: "  sixpn orgs list --json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		answer, err := client.ListOrgsWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200.Organizations)
		}
		var rows [][]string
		for _, org := range answer.JSON200.Organizations {
			rows = append(rows, []string{org.Name, org.Slug, networksOf(org), ago(org.CreatedAt)})
		}
		return c.table("NAME,SLUG,NETWORKS,CREATED", rows)
	})
}

func orgsShow(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:     "show ORG",
		Short:   "Show an org and its networks",
		Example: "  sixpn orgs show acme",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		answer, err := client.GetOrgWithResponse(ctx, args[0])
		if err := api.Check(answer, err); err != nil {
			return err
		}
		org := answer.JSON200
		if c.json {
			return c.printJSON(org)
		}
		if err := c.pairs("Name", org.Name, "Slug", org.Slug, "Created", ago(org.CreatedAt)); err != nil {
			return err
		}
		fmt.Fprintln(c.out)
		return c.table(networkHeader, networkRows(org.Networks))
	})
}

func orgsDelete(c *cli) *cobra.Command {
	var yes bool
	command := &cobra.Command{
		Use:   "delete ORG",
		Short: "Delete an org and its networks",
		Long: `Delete an org and its networks. One that has an app is refused: destroy or move its
apps first.`,
		Example: "  sixpn orgs delete acme --yes",
		Args:    cobra.ExactArgs(1),
	}
	yesFlag(command, &yes)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if err := c.confirm(yes, fmt.Sprintf("Delete org %s and its networks?", args[0])); err != nil {
			return err
		}
		answer, err := client.DeleteOrgWithResponse(ctx, args[0], &api.DeleteOrgParams{Wait: c.until()})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		fmt.Fprintf(c.out, "Deleted org %s\n", args[0])
		return nil
	})
}

func networksOf(org api.Org) string {
	var networks []string
	for _, n := range org.Networks {
		networks = append(networks, n.Name+" "+n.Prefix)
	}
	return strings.Join(networks, ", ")
}
