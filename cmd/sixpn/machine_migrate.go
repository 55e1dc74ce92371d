package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

// migrateInterval is how often a migration is looked after.
const migrateInterval = 100 * time.Millisecond

func machineMigrate(c *cli) *cobra.Command {
	var app, host string
	var limit time.Duration
	command := &cobra.Command{
		Use:   "migrate ID --to HOST",
		Short: "Move a Machine to another host",
		Long: `Move a Machine to another host. It is stopped where it is, and started there with
another address; its id, its name and the names that lead to it stay, and one that is
stopped stays so. Its files and its logs do not come along.

If the other host cannot take or start it, it is started again where it was. Called
with the host that it is on, one that has not left yet is called back.`,
		Example: "  sixpn machine migrate 148e21dad76789 --to host-2",
		Args:    cobra.ExactArgs(1),
	}
	anyAppFlag(command, &app)
	command.Flags().StringVar(&host, "to", "", `host that it shall be on, see "sixpn hosts list"`)
	command.Flags().DurationVarP(&limit, "wait-timeout", "w", settleTime, "how long to wait until it has started there; 0 returns at once")
	_ = command.MarkFlagRequired("to")
	c.completeFlag(command, "to", c.listed(hostshere))
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		app, _, err := find(ctx, client, app, args[0])
		if err != nil {
			return err
		}
		answer, err := client.MigrateMachineWithResponse(ctx, app, args[0], &api.MigrateMachineParams{Wait: c.until()}, api.MigrateRequest{HostName: host})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		m := *answer.JSON200
		if limit > 0 {
			if m, err = c.migrated(ctx, client, app, m, limit); err != nil {
				return err
			}
		}
		if c.json {
			return c.printJSON(m)
		}
		if m.Migration != nil {
			fmt.Fprintf(c.out, "Machine %s is on its way to %s\n", m.ID, host)
			return nil
		}
		fmt.Fprintf(c.out, "Machine %s is on %s with address %s, %s\n", m.ID, m.HostName, m.PrivateIP, m.State)
		return nil
	})
}

// migrated waits until a migration is over.
func (c *cli) migrated(ctx context.Context, client *api.ClientWithResponses, app string, m api.Machine, limit time.Duration) (api.Machine, error) {
	c.note("Waiting until Machine %s is on its other host", m.ID)
	tick := time.NewTicker(migrateInterval)
	defer tick.Stop()
	over := time.After(limit)
	for m.Migration != nil && m.Migration.Error == "" {
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-over:
			return m, fmt.Errorf("Machine %s is still on its way from %s to %s, and %s; look again with: sixpn machine status %s",
				m.ID, m.Migration.From, m.Migration.To, m.State, m.ID)
		case <-tick.C:
		}
		var err error
		if m, err = latest(ctx, client, app, m); err != nil {
			return m, err
		}
	}
	if m.Migration != nil {
		return m, fmt.Errorf("Machine %s stays on %s: %s", m.ID, m.HostName, m.Migration.Error)
	}
	return m, nil
}

// migrationText says where a Machine is on its way to, or why it is not.
func migrationText(m *api.Migration) string {
	switch {
	case m == nil:
		return ""
	case m.Error == "":
		return fmt.Sprintf("from %s to %s", m.From, m.To)
	}
	return fmt.Sprintf("to %s, failed %s: %s", m.To, ago(m.AskedAt), m.Error)
}
