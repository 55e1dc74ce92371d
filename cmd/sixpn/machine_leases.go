package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineLeases(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "leases",
		Aliases: []string{"lease"},
		Short:   "Who alone may change a Machine for now",
		Long: `A lease is held by who changes a Machine in several steps: until it is released or
expires nobody else can change the Machine.`,
		Example: "  sixpn machine leases view 148e21dad76789\n  sixpn machine leases clear 148e21dad76789",
	}, leasesView(c), leasesClear(c))
}

// heldLease is a Machine and the lease it is under, nil if there is none.
type heldLease struct {
	Machine string     `json:"machine_id"`
	Lease   *api.Lease `json:"lease"`
}

// leases looks up which leases Machines are under.
func leases(ctx context.Context, client *api.ClientWithResponses, app string, ids []string, visit func(app string, l heldLease) error) error {
	for _, id := range ids {
		app, _, err := find(ctx, client, app, id)
		if err != nil {
			return err
		}
		held := heldLease{Machine: id}
		answer, err := client.GetLeaseWithResponse(ctx, app, id)
		err = api.Check(answer, err)
		if err != nil && !api.IsStatus(err, http.StatusNotFound) {
			return err
		}
		if err == nil {
			held.Lease = &answer.JSON200.Data
		}
		if err := visit(app, held); err != nil {
			return err
		}
	}
	return nil
}

func leasesView(c *cli) *cobra.Command {
	var app string
	command := c.verb(&cobra.Command{
		Use:     "view ID...",
		Short:   "Show the leases of Machines",
		Example: "  sixpn machine leases view 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		found := []heldLease{}
		var rows [][]string
		err := leases(ctx, client, app, args, func(_ string, held heldLease) error {
			found = append(found, held)
			row := []string{held.Machine, "none", "", "", ""}
			if l := held.Lease; l != nil {
				left := time.Until(time.Unix(l.ExpiresAt, 0)).Round(time.Second)
				row = []string{held.Machine, l.Nonce, cmp.Or(l.Owner, "not said"), "in " + left.String(), l.Description}
			}
			rows = append(rows, row)
			return nil
		})
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(found)
		}
		return c.table("MACHINE,LEASE,OWNER,EXPIRES,DESCRIPTION", rows)
	})
	anyAppFlag(command, &app)
	return command
}

func leasesClear(c *cli) *cobra.Command {
	var app string
	command := &cobra.Command{
		Use:   "clear ID...",
		Short: "End the leases of Machines, whoever holds them",
		Long: `End the leases of Machines, whoever holds them. Who holds one then fails with its
next change.`,
		Example: "  sixpn machine leases clear 148e21dad76789",
		Args:    cobra.MinimumNArgs(1),
	}
	anyAppFlag(command, &app)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		cleared := []string{}
		err := leases(ctx, client, app, args, func(app string, held heldLease) error {
			if held.Lease == nil {
				if !c.json {
					fmt.Fprintf(c.out, "%s has no lease\n", held.Machine)
				}
				return nil
			}
			answer, err := client.ReleaseLeaseWithResponse(ctx, app, held.Machine,
				&api.ReleaseLeaseParams{Wait: c.until(), FlyMachineLeaseNonce: held.Lease.Nonce})
			if err := api.Check(answer, err); err != nil {
				return err
			}
			cleared = append(cleared, held.Machine)
			if !c.json {
				fmt.Fprintf(c.out, "Cleared the lease of %s\n", held.Machine)
			}
			return nil
		})
		if err != nil || !c.json {
			return err
		}
		return c.printJSON(map[string][]string{"cleared": cleared})
	})
}
