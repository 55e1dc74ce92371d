package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "machine",
		Aliases: []string{"machines", "m"},
		Short:   "Processes with a network of their own",
		Example: "  sixpn machine run -a web -- python3 -m http.server --bind :: 8080\n  sixpn machine list",
	},
		machineRun(c), machineList(c), machineStatus(c), machineStart(c), machineStop(c),
		machineRestart(c), machineDestroy(c), machineExec(c), machineLogs(c),
	)
}

func machineList(c *cli) *cobra.Command {
	var app, region string
	var quiet bool
	command := c.verb(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List Machines",
		Example: "  sixpn machine list\n  sixpn machine list -a web --json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		apps, err := appsOr(ctx, client, app)
		if err != nil {
			return err
		}
		machines := []api.Machine{}
		var rows [][]string
		for _, app := range apps {
			answer, err := client.ListMachinesWithResponse(ctx, app, &api.ListMachinesParams{Region: region})
			if err := api.Check(answer, err); err != nil {
				return err
			}
			for _, m := range *answer.JSON200 {
				machines = append(machines, m)
				rows = append(rows, []string{m.ID, m.Name, app, m.State, m.Region, m.PrivateIP, ago(m.CreatedAt)})
			}
		}
		switch {
		case c.json:
			return c.printJSON(machines)
		case quiet:
			for _, m := range machines {
				fmt.Fprintln(c.out, m.ID)
			}
			return nil
		}
		return c.table("ID,NAME,APP,STATE,REGION,IP ADDRESS,CREATED", rows)
	})
	flags := command.Flags()
	flags.StringVarP(&app, "app", "a", "", "only those of this app")
	flags.StringVarP(&region, "region", "r", "", "only those of this region")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print ids only")
	return command
}

// appsOr is the one app that was named, or all.
func appsOr(ctx context.Context, client *api.ClientWithResponses, app string) ([]string, error) {
	if app != "" {
		return []string{app}, nil
	}
	answer, err := client.ListAppsWithResponse(ctx, &api.ListAppsParams{})
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	var names []string
	for _, app := range answer.JSON200.Apps {
		names = append(names, app.Name)
	}
	return names, nil
}

// find looks a Machine up, in all apps unless one is named, for ids are unique.
func find(ctx context.Context, client *api.ClientWithResponses, app, id string) (string, api.Machine, error) {
	apps, err := appsOr(ctx, client, app)
	if err != nil {
		return "", api.Machine{}, err
	}
	for _, candidate := range apps {
		answer, err := client.GetMachineWithResponse(ctx, candidate, id)
		err = api.Check(answer, err)
		if err == nil {
			return candidate, *answer.JSON200, nil
		}
		if app != "" || !isStatus(err, http.StatusNotFound) {
			return "", api.Machine{}, err
		}
	}
	return "", api.Machine{}, fmt.Errorf("there is no Machine %q in any app; list them with: sixpn machine list", id)
}

func isStatus(err error, code int) bool {
	var answered *api.Error
	return errors.As(err, &answered) && answered.Code == code
}

func machineStatus(c *cli) *cobra.Command {
	var app string
	command := c.verb(&cobra.Command{
		Use:     "status ID",
		Short:   "Show a Machine",
		Example: "  sixpn machine status 148e21dad76789",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		app, m, err := find(ctx, client, app, args[0])
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(m)
		}
		return c.printMachine(app, m)
	})
	command.Flags().StringVarP(&app, "app", "a", "", "app of the Machine (default look in all)")
	return command
}

func (c *cli) printMachine(app string, m api.Machine) error {
	last := ""
	if exit := exitOf(m); exit != nil {
		last = fmt.Sprintf("exit code %d, %s", exit.ExitCode, ago(exit.ExitedAt))
	}
	restarts := ""
	if m.Restarts > 0 {
		restarts = strconv.Itoa(m.Restarts)
	}
	err := c.pairs(
		"Machine ID", m.ID, "Name", m.Name, "App", app, "State", m.State, "Message", m.Message,
		"Last run", last, "Restarts", restarts, "Region", m.Region, "Private IP", m.PrivateIP,
		"Process group", m.Config.Metadata["fly_process_group"], "Command", strings.Join(m.Config.Init.Exec, " "),
		"Instance ID", m.InstanceID, "Created", m.CreatedAt.Format(time.RFC3339), "Updated", m.UpdatedAt.Format(time.RFC3339),
	)
	if err != nil || len(m.Config.Services) == 0 {
		return err
	}
	var rows [][]string
	for _, s := range m.Config.Services {
		for _, p := range s.Ports {
			rows = append(rows, []string{portText(p), s.Protocol, strconv.Itoa(s.InternalPort), strings.Join(p.Handlers, " ")})
		}
	}
	fmt.Fprintln(c.out)
	return c.table("PORT,PROTOCOL,INTERNAL PORT,HANDLERS", rows)
}

func portText(p api.ServicePort) string {
	if p.Port != 0 {
		return strconv.Itoa(p.Port)
	}
	return fmt.Sprintf("%d-%d", p.StartPort, p.EndPort)
}

// exitOf is how a Machine's last run ended, nil if none did.
func exitOf(m api.Machine) *api.ExitEvent {
	for _, event := range m.Events {
		if event.Type == "exit" {
			return event.Request.ExitEvent
		}
	}
	return nil
}
