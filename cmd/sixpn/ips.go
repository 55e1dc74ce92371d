package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func ipsCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "ips",
		Aliases: []string{"ip"},
		Short:   "Flycast addresses, which lead to the services of an app",
		Example: "  sixpn ips allocate-v6 --private -a web\n  sixpn ips list -a web",
	}, ipsAllocate(c), ipsList(c), ipsPrivate(c), ipsRelease(c))
}

func ipsAllocate(c *cli) *cobra.Command {
	var app, org, network, region string
	var private bool
	command := &cobra.Command{
		Use:   "allocate-v6",
		Short: "Allocate a Flycast address for an app",
		Long: `Allocate a Flycast address for an app. Machines of the app's own network reach
it, or with --org those of another org's network.`,
		Example: "  sixpn ips allocate-v6 --private -a web\n  sixpn ips allocate-v6 --private --org other -a web",
		Args:    cobra.NoArgs,
	}
	flags := command.Flags()
	appFlag(command, &app)
	flags.BoolVar(&private, "private", false, "a Flycast address, the only kind there is")
	flags.StringVarP(&org, "org", "o", "", "org whose Machines are to reach it (default the app's own)")
	flags.StringVar(&network, "network", "", "network of that org (default the app's own, or the other org's default)")
	flags.StringVarP(&region, "region", "r", "", "only global")
	waitFlag(command, true)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		if !private {
			return usagef("there are no public addresses here, give --private for a Flycast address")
		}
		answer, err := client.CreateIPAssignmentWithResponse(ctx, app, &api.CreateIPAssignmentParams{Wait: c.until()},
			api.CreateIPAssignmentRequest{Type: "private_v6", OrgSlug: org, Network: network, Region: region})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		return c.table(ipHeader, [][]string{ipRow(*answer.JSON200)})
	})
}

func ipsList(c *cli) *cobra.Command {
	var app string
	command := c.verb(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the Flycast addresses of an app",
		Example: "  sixpn ips list -a web",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		answer, err := client.ListIPAssignmentsWithResponse(ctx, app)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200.Ips)
		}
		var rows [][]string
		for _, ip := range answer.JSON200.Ips {
			rows = append(rows, ipRow(ip))
		}
		return c.table(ipHeader, rows)
	})
	appFlag(command, &app)
	return command
}

func ipsRelease(c *cli) *cobra.Command {
	var app string
	command := &cobra.Command{
		Use:     "release ADDRESS...",
		Short:   "Release Flycast addresses of an app",
		Example: "  sixpn ips release fdaa:0:1:0:1::1 -a web",
		Args:    cobra.MinimumNArgs(1),
	}
	appFlag(command, &app)
	waitFlag(command, true)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		for _, address := range args {
			answer, err := client.DeleteIPAssignmentWithResponse(ctx, app, address, &api.DeleteIPAssignmentParams{Wait: c.until()})
			if err := api.Check(answer, err); err != nil {
				return err
			}
			if !c.json {
				fmt.Fprintf(c.out, "Released %s from %s\n", address, app)
			}
		}
		if c.json {
			return c.printJSON(map[string][]string{"released": args})
		}
		return nil
	})
}

func ipsPrivate(c *cli) *cobra.Command {
	var app string
	command := c.verb(&cobra.Command{
		Use:     "private",
		Short:   "List the addresses of an app's Machines",
		Example: "  sixpn ips private -a web",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		answer, err := client.ListMachinesWithResponse(ctx, app, &api.ListMachinesParams{})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		var rows [][]string
		for _, m := range *answer.JSON200 {
			rows = append(rows, []string{m.ID, m.Region, m.PrivateIP})
		}
		return c.table("ID,REGION,IP", rows)
	})
	appFlag(command, &app)
	return command
}

const ipHeader = "VERSION,IP,TYPE,REGION,NETWORK,CREATED"

func ipRow(ip api.IPAssignment) []string {
	return []string{"v6", ip.IP, "private", ip.Region, ip.OrgSlug + "/" + ip.Network, ago(ip.CreatedAt)}
}

// appFlag is the flag of commands that need an app.
func appFlag(command *cobra.Command, app *string) {
	command.Flags().StringVarP(app, "app", "a", "", "app")
	if err := command.MarkFlagRequired("app"); err != nil {
		panic(err) // the flag is defined above
	}
}
