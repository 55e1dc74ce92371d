package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func platformCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "platform",
		Short:   "What there is for all orgs",
		Example: "  sixpn platform regions",
	}, platformRegions(c))
}

func platformRegions(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:   "regions",
		Short: "List the regions",
		Long: `List the regions that Machines can be of: the code that names and commands know,
the city, where it is, and whether WireGuard peers can connect there. An operator
adds regions in the configuration of the agent.`,
		Example: "  sixpn platform regions\n  sixpn platform regions --json | jq -r .Nearest",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		answer, err := client.ListRegionsWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		var rows [][]string
		for _, r := range answer.JSON200.Regions {
			rows = append(rows, []string{r.Name, r.Code, mark(r.GatewayAvailable), degrees(r.Latitude), degrees(r.Longitude), mark(r.Code == answer.JSON200.Nearest)})
		}
		return c.table("NAME,CODE,GATEWAY,LATITUDE,LONGITUDE,THIS HOST", rows)
	})
}

func mark(yes bool) string {
	if yes {
		return "✓"
	}
	return ""
}

func degrees(d float64) string { return strconv.FormatFloat(d, 'f', 2, 64) }
