package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func appsDestroy(c *cli) *cobra.Command {
	var yes bool
	var wait time.Duration
	command := &cobra.Command{
		Use:     "destroy APP...",
		Aliases: []string{"delete", "remove", "rm"},
		Short:   "Destroy apps, with their Machines and Flycast addresses",
		Example: "  sixpn apps destroy web --yes",
		Args:    cobra.MinimumNArgs(1),
	}
	yesFlag(command, &yes)
	command.Flags().DurationVarP(&wait, "wait-timeout", "w", settleTime, "how long to wait until it is gone, 0 to not wait")
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if err := c.confirm(yes, fmt.Sprintf("Destroy %s, with all Machines and addresses?", strings.Join(args, ", "))); err != nil {
			return err
		}
		for _, name := range args {
			answer, err := client.DestroyAppWithResponse(ctx, name, &api.DestroyAppParams{Wait: c.until()})
			if err := api.Check(answer, err); err != nil {
				return err
			}
			if wait > 0 {
				if err := c.appGone(ctx, client, name, wait); err != nil {
					return err
				}
			}
			if !c.json {
				fmt.Fprintf(c.out, "Destroyed app %s\n", name)
			}
		}
		if c.json {
			return c.printJSON(map[string][]string{"destroyed": args})
		}
		return nil
	})
}

// appGone waits until an app's last Machine is gone, and the app with it.
func (c *cli) appGone(ctx context.Context, client *api.ClientWithResponses, name string, limit time.Duration) error {
	c.note("Waiting until app %s is gone", name)
	gone, err := c.eventually(ctx, limit, func() (bool, error) {
		answer, err := client.GetAppWithResponse(ctx, name)
		err = api.Check(answer, err)
		if api.IsStatus(err, http.StatusNotFound) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return err
	}
	if !gone {
		return fmt.Errorf("app %s still has Machines after %s; see: sixpn apps show %s", name, limit, name)
	}
	return c.applied(ctx, client)
}
