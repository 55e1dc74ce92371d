// Package rollout brings the Machines of an app from what they are to what a
// fly.toml, or a number of Machines, asks for: first as a plan, which is a pure
// function of both, then step by step.
package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/cmd/sixpn/internal/flytoml"
)

// Metadata that a deploy writes and goes by.
const (
	groupKey    = "fly_process_group"
	platformKey = "fly_platform_version"
	releaseKey  = "fly_release_version"

	platform = "v2" // of each Machine that a deploy made
)

// Action is what a step does.
type Action string

// The actions.
const (
	Create  Action = "create"
	Update  Action = "update"
	Destroy Action = "destroy"
)

// Step is one Machine's part of a plan.
type Step struct {
	Action Action
	Group  string
	Name   string            // of the Machine
	Before api.Machine       // of an update or a destruction: the Machine as it was
	Config api.MachineConfig // of a creation or an update: what it gets
	Launch bool              // it is to run afterwards
}

// Plan is what a rollout does, in this order.
type Plan struct {
	App     string
	Region  string // of new Machines; empty: the host's
	Release int
	Steps   []Step
	Foreign []api.Machine // of the app, but not made by a deploy: they are left as they are
}

// Wanted is what an app shall be.
type Wanted struct {
	App    string
	Region string
	Groups []flytoml.Group
	// Counts is how many Machines a group shall have. One that is not named keeps as
	// many as it has, or gets one.
	Counts map[string]int
}

// Cordoned are the ids of the Machines that were cordoned before and are kept: they
// stay so, for somebody wanted it, and no deploy has left it behind.
func (p *Plan) Cordoned() (ids []string) {
	for _, step := range p.Steps {
		if step.Action == Update && step.Before.Cordoned {
			ids = append(ids, step.Before.ID)
		}
	}
	return ids
}

// Deploy plans a new release: more Machines come first, so that a release that does
// not work shows itself before a Machine that does is touched; then the others are
// updated, and those too many go at last.
func Deploy(wanted Wanted, current []api.Machine) (Plan, error) {
	plan, managed := begin(wanted.App, wanted.Region, current)
	plan.Release++
	names := make([]string, 0, len(wanted.Groups))
	for _, group := range wanted.Groups {
		names = append(names, group.Name)
	}
	if err := checkCounts(wanted.Counts, names); err != nil {
		return Plan{}, err
	}
	var updates, destructions []Step
	namer := newNamer(current)
	for _, group := range wanted.Groups {
		machines := managed[group.Name]
		delete(managed, group.Name)
		count, given := wanted.Counts[group.Name]
		if !given {
			count = max(1, len(machines))
		}
		for range count - len(machines) {
			plan.Steps = append(plan.Steps, Step{
				Action: Create, Group: group.Name, Name: namer.next(group.Name), Launch: true,
				Config: plan.stamp(group.Config, group.Name, nil),
			})
		}
		keep, surplus := split(machines, count)
		for _, m := range keep {
			updates = append(updates, Step{
				Action: Update, Group: group.Name, Name: m.Name, Before: m, Launch: m.DesiredState == "started" || unborn(m),
				Config: plan.stamp(group.Config, group.Name, &m),
			})
		}
		destructions = append(destructions, destroy(group.Name, surplus)...)
	}
	// What is left is of groups that the file has no more.
	for _, group := range slices.Sorted(maps.Keys(managed)) {
		destructions = append(destructions, destroy(group, managed[group])...)
	}
	plan.Steps = slices.Concat(plan.Steps, updates, destructions)
	return plan, nil
}

// Scale plans another number of Machines without a new release: a new one is like
// the latest of its group.
func Scale(app, region string, counts map[string]int, current []api.Machine) (Plan, error) {
	plan, managed := begin(app, region, current)
	groups := slices.Sorted(maps.Keys(managed))
	if err := checkCounts(counts, groups); err != nil {
		return Plan{}, err
	}
	var destructions []Step
	namer := newNamer(current)
	for _, group := range groups {
		machines := managed[group]
		count, given := counts[group]
		if !given {
			continue
		}
		for range count - len(machines) {
			plan.Steps = append(plan.Steps, Step{
				Action: Create, Group: group, Name: namer.next(group), Launch: true, Config: machines[0].Config,
			})
		}
		_, surplus := split(machines, count)
		destructions = append(destructions, destroy(group, surplus)...)
	}
	plan.Steps = append(plan.Steps, destructions...)
	return plan, nil
}

// Groups is the process groups that deploys made Machines of, by name.
func Groups(current []api.Machine) []string {
	_, managed := begin("", "", current)
	return slices.Sorted(maps.Keys(managed))
}

// begin sorts the Machines of an app by group, those first that are kept first: they
// run, are of the latest release, and have been there longest.
func begin(app, region string, current []api.Machine) (Plan, map[string][]api.Machine) {
	plan := Plan{App: app, Region: region}
	managed := map[string][]api.Machine{}
	for _, m := range current {
		if m.Config.Metadata[platformKey] != platform {
			plan.Foreign = append(plan.Foreign, m)
			continue
		}
		group := m.Config.Metadata[groupKey]
		managed[group] = append(managed[group], m)
		plan.Release = max(plan.Release, releaseOf(m))
	}
	for _, machines := range managed {
		slices.SortFunc(machines, func(a, b api.Machine) int {
			return cmp.Or(
				-cmp.Compare(running(a), running(b)), -cmp.Compare(releaseOf(a), releaseOf(b)),
				a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID),
			)
		})
	}
	return plan, managed
}

func running(m api.Machine) int {
	if m.State == "started" {
		return 1
	}
	return 0
}

// unborn is a Machine that a deploy made and was killed before it started it.
func unborn(m api.Machine) bool { return m.State == "created" }

// releaseOf is the release that a Machine is of, 0 if it says none.
func releaseOf(m api.Machine) int {
	release, err := strconv.Atoi(m.Config.Metadata[releaseKey])
	if err != nil {
		return 0
	}
	return max(0, release)
}

// stamp is a group's configuration as a Machine gets it. What a fly.toml cannot
// say stays as the Machine had it, and so does metadata that was set otherwise.
func (p *Plan) stamp(config api.MachineConfig, group string, before *api.Machine) api.MachineConfig {
	metadata := map[string]string{}
	if before != nil {
		maps.Copy(metadata, before.Config.Metadata)
		config.DNS, config.MTU, config.Image, config.Guest = before.Config.DNS, before.Config.MTU, before.Config.Image, before.Config.Guest
	}
	maps.Copy(metadata, config.Metadata)
	metadata[groupKey], metadata[platformKey], metadata[releaseKey] = group, platform, strconv.Itoa(p.Release)
	config.Metadata = metadata
	return config
}

func split(machines []api.Machine, count int) (keep, surplus []api.Machine) {
	count = min(count, len(machines))
	return machines[:count], machines[count:]
}

func destroy(group string, machines []api.Machine) (steps []Step) {
	for _, m := range machines {
		steps = append(steps, Step{Action: Destroy, Group: group, Name: m.Name, Before: m})
	}
	return steps
}

// maxCount is beyond what one host runs: a larger number is a slip of the hand, and
// is refused before anything is made.
const maxCount = 10_000

func checkCounts(counts map[string]int, groups []string) error {
	for _, group := range slices.Sorted(maps.Keys(counts)) {
		if !slices.Contains(groups, group) {
			return fmt.Errorf("there is no process group %q, expected one of: %v", group, groups)
		}
		if counts[group] < 0 {
			return fmt.Errorf("the count of process group %s is %d, expected 0 or more", group, counts[group])
		}
		if counts[group] > maxCount {
			return fmt.Errorf("the count of process group %s is %d, expected at most %d", group, counts[group], maxCount)
		}
	}
	return nil
}

// namer finds names for new Machines. They are a group and the lowest free number:
// two deploys that begin at the same moment want the same, and only one gets it.
type namer struct {
	taken map[string]bool
	last  map[string]int // by group: no number up to this one is free
}

func newNamer(current []api.Machine) namer {
	n := namer{taken: map[string]bool{}, last: map[string]int{}}
	for _, m := range current {
		n.taken[m.Name] = true
	}
	return n
}

func (n namer) next(group string) string {
	for {
		n.last[group]++
		if name := fmt.Sprintf("%s-%d", group, n.last[group]); !n.taken[name] {
			n.taken[name] = true
			return name
		}
	}
}
