package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

// runFlags is what machine run is told.
type runFlags struct {
	app, region, name, group, restart, workdir string
	ports, env, metadata                       []string
	retries, mtu                               int
	detach, remove                             bool
	wait                                       time.Duration
}

func machineRun(c *cli) *cobra.Command {
	var f runFlags
	command := &cobra.Command{
		Use:   "run -a APP [flags] -- CMD...",
		Short: "Create a Machine that runs a command, and start it",
		Long: `Create a Machine and start it. Without --detach, show what it writes and exit with
its exit code when it has ended; it goes on when this command is interrupted.

A port is EXTERNAL[:INTERNAL][/PROTOCOL[:HANDLER...]]: a port, or a range of ports,
of the app's Flycast addresses, the port that CMD listens on, and tcp or udp.`,
		Example: `  sixpn machine run -a web -p 80:8080/tcp --detach -- python3 -m http.server --bind :: 8080
  sixpn machine run -a db -r ams --metadata role=primary -e PORT=5432 -- ./db
  sixpn machine run -a game -p 8000-8010:8000/udp --restart always --detach -- ./game`,
		Args: func(command *cobra.Command, args []string) error {
			switch dash := command.ArgsLenAtDash(); {
			case dash > 0, dash < 0 && len(args) > 0:
				return usagef("unexpected argument %q, expected the command after --, e.g. -- sleep 60", args[0])
			case len(args) == 0:
				return usagef("there is no command, expected one after --, e.g. -- sleep 60")
			}
			return nil
		},
	}
	flags := command.Flags()
	appFlag(command, &f.app)
	flags.StringVarP(&f.region, "region", "r", "", "region (default the host's)")
	flags.StringVarP(&f.name, "name", "n", "", "name of the Machine (default made up); give the agent's --name before the verb")
	flags.StringVar(&f.group, "process-group", "", "process group (default app)")
	flags.StringArrayVarP(&f.metadata, "metadata", "m", nil, "metadata KEY=VALUE")
	flags.StringArrayVarP(&f.ports, "port", "p", nil, "service, e.g. 80:8080/tcp or 8000-8010:8000/udp")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable KEY=VALUE")
	flags.StringVar(&f.restart, "restart", "", "when it has ended by itself: no (the default), on-failure or always")
	flags.IntVar(&f.retries, "max-retries", 0, "how often it is started again, 0 for no limit")
	flags.StringVar(&f.workdir, "workdir", "", "directory CMD starts in (default /)")
	flags.IntVar(&f.mtu, "mtu", 0, "MTU of its device (default the host's)")
	flags.BoolVarP(&f.detach, "detach", "d", false, "return when it has started")
	flags.BoolVar(&f.remove, "rm", false, "destroy it when it has ended")
	flags.DurationVarP(&f.wait, "wait-timeout", "w", settleTime, "how long to wait until it has started")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if c.json && !f.detach {
			return usagef("--json needs --detach, for otherwise what the Machine writes is shown")
		}
		request, err := f.request(args)
		if err != nil {
			return err
		}
		answer, err := client.CreateMachineWithResponse(ctx, f.app, &api.CreateMachineParams{}, request)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if f.detach {
			return c.runDetached(ctx, client, f, *answer.JSON200)
		}
		return c.runAttached(ctx, client, f, *answer.JSON200)
	})
}

func (f runFlags) request(command []string) (api.CreateMachineRequest, error) {
	services, err := parsePorts(f.ports)
	if err != nil {
		return api.CreateMachineRequest{}, err
	}
	env, err := parsePairs("--env", f.env)
	if err != nil {
		return api.CreateMachineRequest{}, err
	}
	metadata, err := parsePairs("--metadata", f.metadata)
	if err != nil {
		return api.CreateMachineRequest{}, err
	}
	if f.group != "" {
		group := map[string]string{"fly_process_group": f.group}
		maps.Copy(group, metadata)
		metadata = group
	}
	return api.CreateMachineRequest{Name: f.name, Region: f.region, Config: api.MachineConfig{
		Init: api.Init{Exec: command}, Env: env, Metadata: metadata, Services: services,
		Restart: api.Restart{Policy: f.restart, MaxRetries: f.retries}, Workdir: f.workdir, MTU: f.mtu,
		// Attached, the command line removes it once it knows the exit code.
		AutoDestroy: f.remove && f.detach,
	}}, nil
}

func parsePairs(flag string, pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("%s %q is malformed, expected KEY=VALUE", flag, pair)
		}
		out[key] = value
	}
	return out, nil
}

func (c *cli) runDetached(ctx context.Context, client *api.ClientWithResponses, f runFlags, m api.Machine) error {
	if f.wait > 0 {
		if err := waitFor(ctx, client, f.app, m.ID, api.WaitMachineParamsStateSettled, f.wait); err != nil {
			return err
		}
	}
	m, err := latest(ctx, client, f.app, m)
	if err != nil {
		return err
	}
	// One that is through with its work by now has been started too.
	exit := exitOf(m)
	if m.State == string(api.WaitMachineParamsStateFailed) || exit != nil && exit.ExitCode != 0 {
		return fmt.Errorf("Machine %s is %s%s; see: sixpn machine logs %s", m.ID, m.State, why(m), m.ID)
	}
	if c.json {
		return c.printJSON(m)
	}
	return c.pairs("Machine ID", m.ID, "Name", m.Name, "State", m.State, "Region", m.Region, "Private IP", m.PrivateIP)
}

func (c *cli) runAttached(ctx context.Context, client *api.ClientWithResponses, f runFlags, m api.Machine) error {
	fmt.Fprintf(c.err, "Machine %s has address %s\n", m.ID, m.PrivateIP)
	err := waitFor(ctx, client, f.app, m.ID, api.WaitMachineParamsStateSettled, max(f.wait, time.Second))
	if err == nil {
		m, err = latest(ctx, client, f.app, m)
	}
	if err == nil && m.State == string(api.WaitMachineParamsStateFailed) && exitOf(m) == nil {
		return fmt.Errorf("Machine %s has failed%s", m.ID, why(m)) // it never ran, so it wrote nothing
	}
	if err == nil {
		err = c.copyLogs(ctx, client, f.app, m.ID, true)
	}
	if ctx.Err() != nil {
		fmt.Fprintf(c.err, "Machine %s goes on; stop it with: sixpn machine stop %s\n", m.ID, m.ID)
		return exitCode(exitInterrupted)
	}
	if err == nil {
		m, err = latest(ctx, client, f.app, m)
	}
	if err != nil {
		return err
	}
	if f.remove {
		if err := api.Check(client.DestroyMachineWithResponse(ctx, f.app, m.ID, &api.DestroyMachineParams{Force: true})); err != nil {
			return err
		}
	}
	exit := exitOf(m)
	switch {
	case exit == nil:
		return fmt.Errorf("Machine %s is %s, and how its command ended is not known", m.ID, m.State)
	case exit.ExitCode != 0:
		return exitCode(exit.ExitCode)
	}
	return nil
}
