package main

import (
	"context"
	"fmt"
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
the city, whether WireGuard peers can connect there, which is that a host there runs a
gateway, and where it is. An operator adds regions in the configuration of the agent.

How far a region is, is the round trip to the nearest host there, measured through the
mesh, where there is one, and else the great circle from this host's region, taken at
100 km a millisecond. The nearest names and Flycast go by that.`,
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
			rows = append(rows, []string{
				r.Name, r.Code, yesNo(r.GatewayAvailable), degrees(r.Latitude), degrees(r.Longitude),
				measure(r.DistanceKm, "%.0f km"), measure(r.RoundTripMs, "%.1f ms"), mark(r.Code == answer.JSON200.Nearest),
			})
		}
		return c.table("NAME,CODE,GATEWAY,LATITUDE,LONGITUDE,DISTANCE,ROUND TRIP,THIS HOST", rows)
	})
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// measure is a number that may not be known.
func measure(n *float64, format string) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf(format, *n)
}

func mark(yes bool) string {
	if yes {
		return "✓"
	}
	return ""
}

func degrees(d float64) string { return strconv.FormatFloat(d, 'f', 2, 64) }
