package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "machine",
		Aliases: []string{"machines", "m"},
		Short:   "Processes with a network of their own, and what is attached instead of one",
		Example: "  sixpn machine run -a web -- python3 -m http.server --bind :: 8080\n  sixpn machine list",
	},
		machineRun(c), machineList(c), machineStatus(c), machineStart(c), machineStop(c), machineRestart(c),
		machineMigrate(c), machineSuspend(c), machineResume(c), machineKill(c), machineUpdate(c), machineCordon(c), machineUncordon(c),
		machineDestroy(c), machineExec(c), machineLogs(c), machineAttach(c), machineDetach(c), machineLeases(c),
	)
}

func machineList(c *cli) *cobra.Command {
	var app, region, states string
	var metadata []string
	var quiet, deleted bool
	command := c.verb(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List Machines",
		Example: "  sixpn machine list\n  sixpn machine list -a web --json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		wanted, err := parsePairs("--metadata", metadata)
		if err != nil {
			return err
		}
		apps, err := appsOr(ctx, client, app)
		if err != nil {
			return err
		}
		machines := []api.Machine{}
		var rows [][]string
		for _, app := range apps {
			answer, err := client.ListMachinesWithResponse(ctx, app,
				&api.ListMachinesParams{Region: region, State: states, IncludeDeleted: deleted}, withMetadata(wanted))
			if err := api.Check(answer, err); err != nil {
				return err
			}
			for _, m := range *answer.JSON200 {
				machines = append(machines, m)
				rows = append(rows, []string{m.ID, m.Name, app, m.State, checksText(m.Checks), m.Region, m.PrivateIP, ago(m.CreatedAt)})
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
		return c.table("ID,NAME,APP,STATE,CHECKS,REGION,IP ADDRESS,CREATED", rows)
	})
	flags := command.Flags()
	flags.StringVarP(&app, "app", "a", "", "only those of this app")
	flags.StringVarP(&region, "region", "r", "", "only those of this region")
	flags.StringVar(&states, "state", "", "only those in this state, or in one of these with commas between")
	flags.StringArrayVarP(&metadata, "metadata", "m", nil, "only those with this metadata, KEY=VALUE")
	flags.BoolVar(&deleted, "include-deleted", false, "those that were destroyed lately as well")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print ids only")
	return command
}

// withMetadata asks only for Machines with this metadata. Its keys are anything, so
// that the API's document cannot name these parameters.
func withMetadata(wanted map[string]string) api.RequestEditorFn {
	return func(_ context.Context, r *http.Request) error {
		query := r.URL.Query()
		for key, value := range wanted {
			query.Add("metadata."+key, value)
		}
		r.URL.RawQuery = query.Encode()
		return nil
	}
}

// anyAppFlag is the flag of commands that find a Machine without it.
func anyAppFlag(command *cobra.Command, app *string) {
	command.Flags().StringVarP(app, "app", "a", "", "app of the Machines (default look in all)")
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
		if app != "" || !api.IsStatus(err, http.StatusNotFound) {
			return "", api.Machine{}, err
		}
	}
	return "", api.Machine{}, fmt.Errorf("there is no Machine %q in any app; list them with: sixpn machine list", id)
}
