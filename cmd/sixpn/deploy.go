package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/cmd/sixpn/internal/flytoml"
	"github.com/sixpn/sixpn/cmd/sixpn/internal/rollout"
)

// rollFlags are of every command that changes the Machines of an app as a whole.
type rollFlags struct {
	app, region, strategy         string
	detach                        bool
	wait, settle, leaseTTL, every time.Duration
}

const (
	rolling   = "rolling"
	immediate = "immediate"
)

func (f *rollFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&f.region, "region", "r", "", "region of new Machines (default the file's primary_region, or the host's)")
	flags.BoolVarP(&f.detach, "detach", "d", false, "do not wait until the Machines have started; nothing is taken back")
	flags.DurationVar(&f.wait, "wait-timeout", 5*time.Minute, "how long one Machine may take to start and to pass its checks")
	flags.DurationVar(&f.settle, "settle-time", 2*time.Second, "how long a Machine without checks has to go on running")
	flags.DurationVar(&f.leaseTTL, "lease-ttl", 30*time.Second, "how long the Machines stay locked when this command is killed")
	flags.DurationVar(&f.every, "poll-interval", 100*time.Millisecond, "time between two looks at a Machine's checks")
}

func (f *rollFlags) check() error {
	for name, value := range map[string]time.Duration{"wait-timeout": f.wait, "lease-ttl": f.leaseTTL} {
		if value < time.Second {
			return usagef("--%s is %v, expected at least 1s", name, value)
		}
	}
	if f.settle < 0 || f.every <= 0 {
		return usagef("--settle-time is %v and --poll-interval %v, expected more than 0", f.settle, f.every)
	}
	return nil
}

func deployCommand(c *cli) *cobra.Command {
	var f rollFlags
	var path string
	var env, counts []string
	command := &cobra.Command{
		Use:   "deploy [flags] [-- CMD...]",
		Short: "Bring the Machines of an app to what a fly.toml says",
		Long: `Bring the Machines of an app to what a fly.toml says: each of its process groups
gets as many Machines as it has, or one. What they run is in the file's [processes],
or after --. A key of the file that has no meaning here is named in a warning.

A rolling deploy takes one Machine at a time: it leaves Flycast, is restarted with
its new configuration, and comes back once its checks pass. When a Machine does not
start, or its checks do not pass in time, all Machines get back what they had. New
Machines come before the others are changed, surplus ones go last. Machines that
were not made by deploy are left as they are.

Interrupted, it leaves everything as it is and says what that is. Killed, it leaves
everything as it is too: within --lease-ttl its locks end, and Flycast has all Machines
again; the next deploy goes on from there.`,
		Example: `  sixpn deploy
  sixpn deploy -c web/fly.toml -a web --count 3
  sixpn deploy -a web --strategy immediate -e LEVEL=debug -- python3 -m http.server --bind :: 8080`,
		Args: func(command *cobra.Command, args []string) error {
			if dash := command.ArgsLenAtDash(); dash > 0 || dash < 0 && len(args) > 0 {
				return usagef("unexpected argument %q, expected the command after --, e.g. -- ./server", args[0])
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVarP(&path, "config", "c", "fly.toml", "file to deploy from")
	flags.StringVarP(&f.app, "app", "a", "", "app (default the file's)")
	flags.StringVar(&f.strategy, "strategy", "", "rolling or immediate: all Machines at once, without waiting for checks (default the file's, or rolling)")
	flags.StringArrayVarP(&env, "env", "e", nil, "environment variable KEY=VALUE, stronger than the file's")
	flags.StringSliceVar(&counts, "count", nil, "number of Machines, or GROUP=NUMBER")
	f.add(command)
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		variables, err := parsePairs("--env", env)
		if err != nil {
			return err
		}
		file, err := readFlyToml(path, flytoml.Options{Command: args, Env: variables})
		if err != nil {
			c.warn(path, file.Warnings)
			return err
		}
		if f.app = cmp.Or(f.app, file.App); f.app == "" {
			return usagef("%s names no app: add e.g. app = \"web\" to it, or give --app", path)
		}
		if !command.Flags().Changed("wait-timeout") && file.WaitTimeout >= time.Second {
			f.wait = file.WaitTimeout
		}
		if err := f.choose(&file); err != nil {
			return err
		}
		c.warn(path, file.Warnings)
		groups := make([]string, 0, len(file.Groups))
		for _, group := range file.Groups {
			groups = append(groups, group.Name)
		}
		wanted := rollout.Wanted{App: f.app, Region: cmp.Or(f.region, file.PrimaryRegion), Groups: file.Groups}
		if wanted.Counts, err = parseCounts(counts, groups); err != nil {
			return err
		}
		current, err := appMachines(ctx, client, f.app)
		if err != nil {
			return err
		}
		plan, err := rollout.Deploy(wanted, current)
		if err != nil {
			return usagef("%v", err)
		}
		return c.roll(ctx, client, f, plan, file.Warnings)
	})
}

func readFlyToml(path string, options flytoml.Options) (flytoml.File, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return flytoml.File{}, fmt.Errorf("there is no %s: write one, or say where it is with --config", path)
	}
	if err != nil {
		return flytoml.File{}, err
	}
	file, err := flytoml.Read(text, options)
	if err != nil {
		return file, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

// warn says what of a fly.toml is not used.
func (c *cli) warn(path string, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintf(c.err, "Warning: %s: %s\n", path, warning)
	}
}

// choose finds the strategy. One that flyctl knows and sixpn does not is warned of
// in a file and refused as a flag.
func (f *rollFlags) choose(file *flytoml.File) error {
	switch f.strategy {
	case rolling, immediate:
		return nil
	case "":
	default:
		return usagef("--strategy is %q, expected rolling or immediate", f.strategy)
	}
	switch f.strategy = cmp.Or(file.Strategy, rolling); f.strategy {
	case rolling, immediate:
	default:
		file.Warnings = append(file.Warnings, fmt.Sprintf("deploy.strategy %s has no meaning here: this deploy is rolling", f.strategy))
		f.strategy = rolling
	}
	return nil
}

// parseCounts reads NUMBER, of the only group there is, and GROUP=NUMBER.
func parseCounts(texts, groups []string) (map[string]int, error) {
	counts := map[string]int{}
	for _, text := range texts {
		group, number, named := strings.Cut(text, "=")
		if !named {
			if len(groups) != 1 {
				return nil, usagef("count %q is for one process group, and there are %s; say which, e.g. %s=%s",
					text, strings.Join(groups, ", "), groups[0], text)
			}
			group, number = groups[0], text
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 {
			return nil, usagef("count %q is malformed, expected a number of Machines or GROUP=NUMBER, e.g. 3", text)
		}
		if _, twice := counts[group]; twice {
			return nil, usagef("process group %s has two counts, expected one", group)
		}
		counts[group] = n
	}
	return counts, nil
}

func appMachines(ctx context.Context, client *api.ClientWithResponses, app string) ([]api.Machine, error) {
	answer, err := client.ListMachinesWithResponse(ctx, app, &api.ListMachinesParams{})
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	return *answer.JSON200, nil
}
