package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func logsCommand(c *cli) *cobra.Command {
	l := &appLogs{cli: c}
	var noTail bool
	command := &cobra.Command{
		Use:   "logs -a APP",
		Short: "Show what the Machines of an app write",
		Long: `Show what the Machines of an app wrote to their standard output and error, and go on
with what they write, those that start meanwhile included, on whichever hosts they are,
also after a restart of an agent.
With --no-tail show what there is, in the order of time.`,
		Example: "  sixpn logs -a web\n  sixpn logs -a web --no-tail\n  sixpn logs -a web --region ams --json",
		Args:    cobra.NoArgs,
	}
	flags := command.Flags()
	appFlag(command, &l.app)
	flags.StringVar(&l.machine, "machine", "", "only this Machine, by its id")
	flags.StringVarP(&l.region, "region", "r", "", "only Machines of this region")
	flags.BoolVarP(&noTail, "no-tail", "n", false, "end with what there is")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		l.client = client
		if noTail {
			return l.show(ctx)
		}
		return l.follow(ctx)
	})
}

// appLogs shows the output of an app's Machines, a line with its Machine each.
type appLogs struct {
	cli                  *cli
	client               *api.ClientWithResponses
	app, machine, region string

	mu sync.Mutex // of the output
}

// machines are those whose output is wanted.
func (l *appLogs) machines(ctx context.Context) ([]api.Machine, error) {
	answer, err := l.client.ListMachinesWithResponse(ctx, l.app, &api.ListMachinesParams{Region: l.region})
	if err := api.Check(answer, err); err != nil {
		return nil, err
	}
	if l.machine == "" {
		return *answer.JSON200, nil
	}
	for _, m := range *answer.JSON200 {
		if m.ID == l.machine {
			return []api.Machine{m}, nil
		}
	}
	return nil, nil
}

func (l *appLogs) show(ctx context.Context) error {
	machines, err := l.machines(ctx)
	if err != nil {
		return err
	}
	if l.machine != "" && len(machines) == 0 {
		return fmt.Errorf("app %s has no Machine %q; list them with: sixpn machine list -a %s", l.app, l.machine, l.app)
	}
	return l.merge(ctx, machines)
}

// tail is one Machine that is followed. Its stream ends with the Machine, and a
// new one begins with all that is kept of the earlier runs.
type tail struct {
	instance string // run that the stream is of
	running  bool
	seen     logPlace // of the stream's alone while it is running
}

// ended is how the stream of one Machine ended.
type ended struct {
	id  string
	err error
}

func (l *appLogs) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	tails := map[string]*tail{}
	ends := make(chan ended)
	look := time.NewTicker(l.cli.poll)
	defer look.Stop()
	var heard time.Time // when the agent last answered
	for {
		machines, err := l.machines(ctx)
		switch {
		case err == nil:
			heard = time.Now()
		case ctx.Err() != nil, heard.IsZero(), !goesOn(err), time.Since(heard) > l.cli.patience:
			return err
		}
		for _, m := range machines {
			t := tails[m.ID]
			if t == nil {
				t = &tail{}
				tails[m.ID] = t
			}
			if t.running || t.instance == m.InstanceID {
				continue
			}
			t.running, t.instance = true, m.InstanceID
			streams.Go(func() {
				err := l.cli.follow(ctx, l.client, l.app, m.ID, &t.seen, func(piece []byte) error { return l.print(m, piece) })
				if api.IsStatus(err, http.StatusNotFound) {
					err = nil // it is gone, and has written all
				}
				select {
				case ends <- ended{m.ID, err}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case end := <-ends:
			if end.err != nil {
				return end.err
			}
			tails[end.id].running = false
		case <-look.C:
		}
	}
}

// logEntry is one line with --json.
type logEntry struct {
	App      string `json:"app"`
	Instance string `json:"instance"`
	Region   string `json:"region"`
	Message  string `json:"message"`
}

func (l *appLogs) print(m api.Machine, line []byte) error {
	line = bytes.TrimSuffix(line, []byte("\n"))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cli.json {
		return json.NewEncoder(l.cli.out).Encode(logEntry{l.app, m.ID, m.Region, string(line)})
	}
	_, err := fmt.Fprintf(l.cli.out, "%s[%s] %s %s\n", l.app, m.ID, m.Region, line)
	return err
}
