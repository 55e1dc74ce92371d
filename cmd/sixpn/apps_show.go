package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

func appsShow(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:     "show APP",
		Short:   "Show an app, its addresses and its Machines",
		Example: "  sixpn apps show web\n  sixpn status -a web",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		return c.showApp(ctx, client, args[0])
	})
}

// appStatus is an app with all that belongs to it.
type appStatus struct {
	api.App
	IPs      []api.IPAssignment `json:"ips"`
	Machines []api.Machine      `json:"machines"`
}

func (c *cli) showApp(ctx context.Context, client *api.ClientWithResponses, name string) error {
	app, err := client.GetAppWithResponse(ctx, name)
	if err := api.Check(app, err); err != nil {
		return err
	}
	ips, err := client.ListIPAssignmentsWithResponse(ctx, name)
	if err := api.Check(ips, err); err != nil {
		return err
	}
	machines, err := client.ListMachinesWithResponse(ctx, name, &api.ListMachinesParams{})
	if err := api.Check(machines, err); err != nil {
		return err
	}
	s := appStatus{*app.JSON200, ips.JSON200.Ips, *machines.JSON200}
	if c.json {
		return c.printJSON(s)
	}
	var flycast []string
	for _, ip := range s.IPs {
		flycast = append(flycast, ip.IP)
	}
	err = c.pairs("Name", s.Name, "Owner", s.Organization.Slug, "Network", s.Network, "Status", s.Status,
		"Hostname", s.Name+".internal", "Flycast", strings.Join(flycast, ", "), "Created", ago(time.Unix(s.CreatedAt, 0)))
	if err != nil {
		return err
	}
	var rows [][]string
	for _, m := range s.Machines {
		rows = append(rows, []string{groupOf(m), m.ID, m.Region, m.State, checksText(m.Checks), m.PrivateIP, ago(m.UpdatedAt)})
	}
	fmt.Fprintln(c.out)
	return c.table("PROCESS,ID,REGION,STATE,CHECKS,IP ADDRESS,LAST UPDATED", rows)
}

// groupOf is a Machine's process group.
func groupOf(m api.Machine) string {
	if group := m.Config.Metadata[state.ProcessGroupKey]; group != "" {
		return group
	}
	return "app"
}

// checksText counts health checks by what they say.
func checksText(checks []api.CheckStatus) string {
	if len(checks) == 0 {
		return ""
	}
	count := map[string]int{}
	for _, check := range checks {
		count[check.Status]++
	}
	text := fmt.Sprintf("%d total", len(checks))
	for _, status := range []string{"passing", "warning", "critical"} {
		if n := count[status]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, status)
		}
	}
	return text
}
