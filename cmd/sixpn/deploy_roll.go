package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/cmd/sixpn/internal/rollout"
)

// rolled is what a deploy and a scaling answer programs.
type rolled struct {
	App      string            `json:"app"`
	Release  int               `json:"release"`
	Strategy string            `json:"strategy"`
	OK       bool              `json:"ok"`
	Error    string            `json:"error,omitempty"`
	Steps    []rollout.Outcome `json:"steps"`
	Warnings []string          `json:"warnings"`
}

// roll carries a plan out and says how it went.
func (c *cli) roll(ctx context.Context, client *api.ClientWithResponses, f rollFlags, plan rollout.Plan, warnings []string) error {
	host, _ := os.Hostname() // only said to people
	show := &progress{c: c, live: !c.json && isTerminal(c.err)}
	runner := &rollout.Runner{
		Client: client, Owner: fmt.Sprintf("sixpn, process %d of %s", os.Getpid(), host), Progress: show.tell,
		Immediate: f.strategy == immediate, Detach: f.detach,
		WaitTimeout: f.wait, Settle: f.settle, LeaseTTL: f.leaseTTL, Poll: f.every,
	}
	outcomes, err := runner.Run(ctx, plan)
	show.end()
	if err != nil {
		err = explainRoll(plan, outcomes, err)
	}
	if c.json {
		result := rolled{App: plan.App, Release: plan.Release, Strategy: f.strategy, OK: err == nil, Steps: outcomes, Warnings: warnings}
		if result.Warnings == nil {
			result.Warnings = []string{}
		}
		if err != nil {
			result.Error = err.Error()
		}
		return errors.Join(err, c.printJSON(result))
	}
	if err != nil {
		return err
	}
	if n := len(plan.Foreign); n > 0 {
		fmt.Fprintf(c.err, "Left as they are, for they were not made by deploy: %s\n", strings.Join(ids(plan.Foreign), " "))
	}
	if cordoned := plan.Cordoned(); len(cordoned) > 0 {
		fmt.Fprintf(c.err, "Cordoned before, by somebody, so Flycast does not use them; to change that: sixpn machine uncordon %s\n",
			strings.Join(cordoned, " "))
	}
	fmt.Fprintf(c.out, "App %s is at release %d: %s\n", plan.App, plan.Release, summary(outcomes))
	return nil
}

func ids(machines []api.Machine) (ids []string) {
	for _, m := range machines {
		ids = append(ids, m.ID)
	}
	return ids
}

// summary counts what was done, e.g. "1 created, 2 updated".
func summary(outcomes []rollout.Outcome) string {
	var parts []string
	for _, kind := range []struct {
		action rollout.Action
		word   string
	}{{rollout.Create, "created"}, {rollout.Update, "updated"}, {rollout.Destroy, "destroyed"}} {
		n := 0
		for _, outcome := range outcomes {
			if outcome.Action == kind.action && outcome.Result == rollout.Done {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind.word))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// explainRoll is the error of a rollout with what it left behind.
func explainRoll(plan rollout.Plan, outcomes []rollout.Outcome, err error) error {
	var left []string
	headline := err.Error()
	if errors.Is(err, rollout.ErrInterrupted) {
		headline = "" // it says nothing of the steps
	}
	for _, outcome := range outcomes {
		if outcome.Result == rollout.Pending && !errors.Is(err, rollout.ErrInterrupted) {
			continue
		}
		line := fmt.Sprintf("  %s %s", outcome.Action, outcome.Name)
		if outcome.MachineID != "" {
			line += " (" + outcome.MachineID + ")"
		}
		line += ": " + string(outcome.Result)
		if outcome.Message != "" && !strings.Contains(headline, outcome.Message) {
			line += ": " + outcome.Message
		}
		left = append(left, line)
		if outcome.Logs != "" {
			left = append(left, "    it wrote: "+strings.ReplaceAll(outcome.Logs, "\n", "\n    it wrote: "))
		}
	}
	if len(left) == 0 {
		return err
	}
	// The steps say all that a joined error would say twice.
	if errors.Is(err, rollout.ErrInterrupted) {
		return fmt.Errorf("release %d of app %s was %w:\n%s", plan.Release, plan.App, rollout.ErrInterrupted, strings.Join(left, "\n"))
	}
	return fmt.Errorf("release %d of app %s failed: %w\n%s", plan.Release, plan.App, err, strings.Join(left, "\n"))
}

// progress shows a rollout: at a terminal what goes on, else a line when a step ends.
type progress struct {
	c     *cli
	live  bool
	shown bool // a line that the next one replaces
}

// clearLine goes to the line's beginning and empties it (ECMA-48, EL).
const clearLine = "\r\x1b[K"

func (p *progress) tell(progress rollout.Progress) {
	if p.c.json {
		return
	}
	line := fmt.Sprintf("[%d/%d] %s %s", progress.Step, progress.Of, progress.Action, progress.Name)
	if progress.MachineID != "" {
		line += " (" + progress.MachineID + ")"
	}
	if progress.Doing != "" {
		if p.live {
			fmt.Fprintf(p.c.err, "%s%s: %s", clearLine, line, progress.Doing)
			p.shown = true
		}
		return
	}
	p.end()
	fmt.Fprintf(p.c.out, "%s: %s\n", line, progress.Result)
}

func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.c.err, clearLine)
	}
	p.shown = false
}

func scaleCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "scale",
		Short:   "How many Machines an app has",
		Example: "  sixpn scale count 3 -a web",
	}, scaleCount(c))
}

func scaleCount(c *cli) *cobra.Command {
	f := rollFlags{strategy: rolling}
	command := &cobra.Command{
		Use:   "count NUMBER|GROUP=NUMBER...",
		Short: "Make or destroy Machines, until there are so many",
		Long: `Make or destroy Machines of an app that was deployed, until a process group has so
many. A new one is like the others of its group.`,
		Example: "  sixpn scale count 3 -a web\n  sixpn scale count web=2 worker=1 -a shop",
		Args:    cobra.MinimumNArgs(1),
	}
	appFlag(command, &f.app)
	f.add(command)
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		current, err := appMachines(ctx, client, f.app)
		if err != nil {
			return err
		}
		groups := rollout.Groups(current)
		if len(groups) == 0 {
			return fmt.Errorf("app %s has no Machine that a deploy made; make the first with: sixpn deploy -a %s", f.app, f.app)
		}
		counts, err := parseCounts(args, groups)
		if err != nil {
			return err
		}
		plan, err := rollout.Scale(f.app, f.region, counts, current)
		if err != nil {
			return usagef("%v", err)
		}
		plan.Foreign = nil // that a scaling leaves them alone is no surprise
		return c.roll(ctx, client, f, plan, nil)
	})
}
