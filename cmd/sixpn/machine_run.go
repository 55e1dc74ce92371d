package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

// runFlags is what the commands that create a Machine are told.
type runFlags struct {
	configFlags
	app, id, region, host, name string
	detach, remove              bool
	wait                        time.Duration
}

func (f *runFlags) flags(command *cobra.Command) {
	flags := command.Flags()
	appFlag(command, &f.app)
	flags.StringVar(&f.id, "id", "", "14 hexadecimal digits of its id (default made up); the same command again makes no second Machine")
	flags.StringVarP(&f.region, "region", "r", "", "region; one of its hosts is chosen (default this host's)")
	flags.StringVarP(&f.name, "name", "n", "", "name of the Machine (default made up); give the agent's --name before the verb")
	flags.DurationVarP(&f.wait, "wait-timeout", "w", settleTime, "how long to wait until it has started")
	f.configFlags.flags(command)
}

func machineRun(c *cli) *cobra.Command {
	var f runFlags
	command := &cobra.Command{
		Use:   "run -a APP [flags] -- CMD...",
		Short: "Create a Machine that runs a command, and start it",
		Long: `Create a Machine and start it. Without --detach, show what it writes and exit with
its exit code when it has ended; it goes on when this command is interrupted.

A port is EXTERNAL[:INTERNAL][/PROTOCOL[:HANDLER...]]: a port, or a range of ports,
of the app's Flycast addresses, the port that CMD listens on, and tcp or udp.

A check is [NAME=]TYPE:PORT[PATH][,OPTION=VALUE...]: tcp, http or https, the port that
CMD listens on, and interval, timeout, grace, method or insecure. While a check fails
the Machine gets no new Flycast connection, unless it fails on all.`,
		Example: `  sixpn machine run -a web -p 80:8080/tcp --detach -- python3 -m http.server --bind :: 8080
  sixpn machine run -a db -r ams --metadata role=primary -e PORT=5432 -- ./db
  sixpn machine run -a api -p 80:8080 --check http:8080/healthz,interval=5s -d -- ./api
  sixpn machine run -a job --machine-config '{"init":{"exec":["./job"]},"auto_destroy":true}' -d
  sixpn machine run -a game -p 8000-8010:8000/udp --restart always --detach -- ./game`,
		Args: func(command *cobra.Command, args []string) error {
			switch dash := command.ArgsLenAtDash(); {
			case dash > 0, dash < 0 && len(args) > 0:
				return usagef("unexpected argument %q, expected the command after --, e.g. -- sleep 60", args[0])
			case len(args) == 0 && !command.Flags().Changed("machine-config"):
				return usagef("there is no command, expected one after --, e.g. -- sleep 60")
			}
			return nil
		},
	}
	flags := command.Flags()
	f.flags(command)
	f.processFlags(command)
	flags.StringVar(&f.host, "host", "", `host that it shall be on, see "sixpn hosts list" (default this one, or one of the region)`)
	flags.BoolVarP(&f.detach, "detach", "d", false, "return when it has started")
	flags.BoolVar(&f.remove, "rm", false, "destroy it when it has ended")
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if c.json && !f.detach {
			return usagef("--json needs --detach, for otherwise what the Machine writes is shown")
		}
		m, err := f.create(ctx, c, client, command, args, func(config *api.MachineConfig) {
			// Attached, the command line removes it once it knows the exit code.
			config.AutoDestroy = config.AutoDestroy || f.remove && f.detach
		})
		if err != nil {
			return err
		}
		if f.detach {
			return c.runDetached(ctx, client, f, m)
		}
		return c.runAttached(ctx, client, f, m)
	})
}

// create asks for the Machine that the flags describe. The server says what else
// its configuration needs, such as a command.
func (f *runFlags) create(ctx context.Context, c *cli, client *api.ClientWithResponses, command *cobra.Command, args []string,
	change func(*api.MachineConfig),
) (api.Machine, error) {
	request := api.CreateMachineRequest{ID: f.id, Name: f.name, Region: f.region, HostName: f.host}
	if err := f.apply(c, command, args, &request.Config); err != nil {
		return api.Machine{}, err
	}
	change(&request.Config)
	answer, err := client.CreateMachineWithResponse(ctx, f.app, &api.CreateMachineParams{Wait: c.until()}, request)
	if err := api.Check(answer, err); err != nil {
		return api.Machine{}, err
	}
	return *answer.JSON200, nil
}

func (c *cli) runDetached(ctx context.Context, client *api.ClientWithResponses, f runFlags, m api.Machine) error {
	if f.wait > 0 {
		if err := c.waitFor(ctx, client, f.app, m.ID, api.WaitMachineParamsStateSettled, f.wait); err != nil {
			return err
		}
		if err := c.applied(ctx, client); err != nil {
			return err
		}
		var err error
		if m, err = latest(ctx, client, f.app, m); err != nil {
			return err
		}
		// One that is through with its work by now has been started too.
		exit := m.LastExit()
		if m.State == string(api.WaitMachineParamsStateFailed) || exit != nil && exit.ExitCode != 0 {
			if m.Config.Attach != nil { // which writes no logs
				return fmt.Errorf("Machine %s is %s%s; try again with: sixpn machine start %s, or remove it with: sixpn machine detach %s",
					m.ID, m.State, m.Why(), m.ID, m.ID)
			}
			return fmt.Errorf("Machine %s is %s%s; see: sixpn machine logs %s", m.ID, m.State, m.Why(), m.ID)
		}
	}
	if c.json {
		return c.printJSON(m)
	}
	return c.pairs("Machine ID", m.ID, "Name", m.Name, "State", m.State, "Region", m.Region, "Private IP", m.PrivateIP)
}

func (c *cli) runAttached(ctx context.Context, client *api.ClientWithResponses, f runFlags, m api.Machine) error {
	fmt.Fprintf(c.err, "Machine %s has address %s\n", m.ID, m.PrivateIP)
	err := c.waitFor(ctx, client, f.app, m.ID, api.WaitMachineParamsStateSettled, max(f.wait, time.Second))
	if err == nil {
		m, err = latest(ctx, client, f.app, m)
	}
	if err == nil && m.State == string(api.WaitMachineParamsStateFailed) && m.LastExit() == nil {
		if f.remove {
			if err := c.remove(ctx, client, f, m.ID); err != nil {
				return err
			}
		}
		return fmt.Errorf("Machine %s has failed%s", m.ID, m.Why()) // it never ran, so it wrote nothing
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
		if err := c.remove(ctx, client, f, m.ID); err != nil {
			return err
		}
	}
	exit := m.LastExit()
	switch {
	case exit == nil:
		return fmt.Errorf("Machine %s is %s, and how its command ended is not known", m.ID, m.State)
	case exit.ExitCode != 0:
		return exitCode(exit.ExitCode)
	}
	return nil
}

// remove destroys a Machine and returns when it is gone.
func (c *cli) remove(ctx context.Context, client *api.ClientWithResponses, f runFlags, id string) error {
	if err := api.Check(client.DestroyMachineWithResponse(ctx, f.app, id, &api.DestroyMachineParams{Wait: c.until(), Force: true})); err != nil {
		return err
	}
	return c.waitFor(ctx, client, f.app, id, api.WaitMachineParamsStateDestroyed, max(f.wait, time.Second))
}
