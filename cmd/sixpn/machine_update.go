package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

// updateFlags is what machine update is told beside the configuration.
type updateFlags struct {
	configFlags
	target
	dropEnv, dropMetadata       []string
	skipStart, skipChecks, sure bool
}

func machineUpdate(c *cli) *cobra.Command {
	var f updateFlags
	command := &cobra.Command{
		Use:   "update ID [flags] [-- CMD...]",
		Short: "Change the configuration of a Machine, which restarts it",
		Long: `Change the configuration of a Machine: it is restarted with it, or started if it does
not run. Environment and metadata are added to, services and checks replaced; what
no flag names stays. It is done when the Machine has started and its checks pass.

While this command changes it, it holds the lease of the Machine: a Machine that
somebody else holds is refused.`,
		Example: `  sixpn machine update 148e21dad76789 --yes -e DEBUG=1 --metadata role=primary
  sixpn machine update 148e21dad76789 --yes -p 80:9090/tcp -- python3 -m http.server --bind :: 9090
  sixpn machine update 148e21dad76789 --yes --machine-config new.json`,
		Args: func(command *cobra.Command, args []string) error {
			if dash := command.ArgsLenAtDash(); dash == 1 || dash < 0 && len(args) == 1 {
				return nil
			}
			return usagef("expected one Machine's id, and after -- its new command if it is to have one")
		},
	}
	f.target.flags(command)
	f.configFlags.flags(command)
	f.processFlags(command)
	flags := command.Flags()
	flags.StringArrayVar(&f.dropEnv, "unset-env", nil, "environment variable KEY to remove")
	flags.StringArrayVar(&f.dropMetadata, "unset-metadata", nil, "metadata KEY to remove")
	flags.BoolVar(&f.skipStart, "skip-start", false, "leave it stopped")
	flags.BoolVar(&f.skipChecks, "skip-health-checks", false, "do not wait until its checks pass")
	yesFlag(command, &f.sure)
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		app, _, err := find(ctx, client, f.app, args[0])
		if err != nil {
			return err
		}
		// Unlike what destroys, this can be undone: only who can be asked is.
		if isTerminal(c.in) {
			if err := c.confirm(f.sure, fmt.Sprintf("Update Machine %s, which restarts it?", args[0])); err != nil {
				return err
			}
		}
		m, err := c.updateUnderLease(ctx, client, f, command, app, args)
		if err != nil {
			return err
		}
		if f.target.wait > 0 {
			if err := c.updated(ctx, client, f, app, m.ID); err != nil {
				return err
			}
		}
		if m, err = latest(ctx, client, app, m); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(m)
		}
		fmt.Fprintf(c.out, "%s is updated and %s\n", m.ID, m.State)
		return nil
	})
}

// leaseSeconds is for how long an update may hold the lease of a Machine.
const leaseSeconds = 30

// updateUnderLease reads the configuration, changes it and writes it back. In
// between nobody else can change it.
func (c *cli) updateUnderLease(ctx context.Context, client *api.ClientWithResponses, f updateFlags, command *cobra.Command,
	app string, args []string,
) (m api.Machine, err error) {
	id := args[0]
	lease, err := client.AcquireLeaseWithResponse(ctx, app, id, &api.AcquireLeaseParams{TTL: leaseSeconds},
		api.LeaseRequest{Owner: whoAmI(), Description: command.CommandPath()})
	if err := api.Check(lease, err); err != nil {
		return m, err
	}
	nonce := lease.JSON201.Data.Nonce
	defer func() {
		// After an interruption too. Should it fail, the lease ends by itself.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = client.ReleaseLeaseWithResponse(ctx, app, id, &api.ReleaseLeaseParams{FlyMachineLeaseNonce: nonce})
	}()
	current, err := client.GetMachineWithResponse(ctx, app, id)
	if err := api.Check(current, err); err != nil {
		return m, err
	}
	m = *current.JSON200
	if err := f.apply(c, command, args[1:], &m.Config); err != nil {
		return m, err
	}
	for _, key := range f.dropEnv {
		delete(m.Config.Env, key)
	}
	for _, key := range f.dropMetadata {
		delete(m.Config.Metadata, key)
	}
	answer, err := client.UpdateMachineWithResponse(ctx, app, id, &api.UpdateMachineParams{Wait: c.until(), FlyMachineLeaseNonce: nonce},
		api.UpdateMachineRequest{Config: m.Config, CurrentVersion: m.InstanceID, SkipLaunch: f.skipStart})
	if err := api.Check(answer, err); err != nil {
		return m, err
	}
	return *answer.JSON200, nil
}

// updated waits until a Machine runs with its new configuration and is healthy.
func (c *cli) updated(ctx context.Context, client *api.ClientWithResponses, f updateFlags, app, id string) error {
	state := api.WaitMachineParamsStateStarted
	if f.skipStart {
		state = api.WaitMachineParamsStateStopped
	}
	deadline := time.Now().Add(f.target.wait)
	if err := c.waitFor(ctx, client, app, id, state, f.target.wait); err != nil {
		return err
	}
	if !f.skipStart && !f.skipChecks {
		if err := c.healthy(ctx, client, app, id, time.Until(deadline)); err != nil {
			return err
		}
	}
	return c.applied(ctx, client)
}

// healthy waits until all checks of a Machine pass.
func (c *cli) healthy(ctx context.Context, client *api.ClientWithResponses, app, id string, limit time.Duration) error {
	var seen api.Machine
	passed, err := c.eventually(ctx, limit, func() (bool, error) {
		answer, err := client.GetMachineWithResponse(ctx, app, id)
		if err := api.Check(answer, err); err != nil {
			return false, err
		}
		seen = *answer.JSON200
		return seen.PassingChecks() == seen.Config.CountChecks(), nil
	})
	if err == nil && !passed {
		return fmt.Errorf("Machine %s is %s, but its checks do not pass (%s); see: sixpn machine status %s", id, seen.State, checksText(seen.Checks), id)
	}
	return err
}

// whoAmI names the owner of a lease, for people.
func whoAmI() string {
	name := "user " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
