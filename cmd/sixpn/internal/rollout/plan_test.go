package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/cmd/sixpn/internal/flytoml"
)

// made is a Machine as a deploy makes one. Later ones are younger.
func made(id, group string, release int, change ...func(*api.Machine)) api.Machine {
	m := api.Machine{
		ID: id, Name: id, State: "started", DesiredState: "started", InstanceID: "instance-" + id,
		CreatedAt: time.Unix(int64(id[0]), 0),
		Config: api.MachineConfig{
			Init:     api.Init{Exec: []string{"old"}},
			Metadata: map[string]string{groupKey: group, platformKey: platform, releaseKey: strconv.Itoa(release)},
		},
	}
	for _, f := range change {
		f(&m)
	}
	return m
}

func stopped(m *api.Machine)            { m.State, m.DesiredState = "stopped", "stopped" }
func unlaunched(m *api.Machine)         { m.State, m.DesiredState = "created", "stopped" }
func crashed(m *api.Machine)            { m.State = "stopped" }
func foreign(m *api.Machine)            { m.Config.Metadata = nil }
func inRole(m *api.Machine)             { m.Config.Metadata["role"] = "primary"; m.Config.DNS.Hostname = "db" }
func named(n string) func(*api.Machine) { return func(m *api.Machine) { m.Name = n } }

// show writes a plan down: "action group name", with ! for what is not started.
func show(p Plan) []string {
	steps := []string{}
	for _, s := range p.Steps {
		mark := ""
		if s.Action != Destroy && !s.Launch {
			mark = "!"
		}
		steps = append(steps, fmt.Sprintf("%s %s %s%s", s.Action, s.Group, s.Name, mark))
	}
	return steps
}

func groups(names ...string) (groups []flytoml.Group) {
	for _, name := range names {
		groups = append(groups, flytoml.Group{Name: name, Config: api.MachineConfig{
			Init: api.Init{Exec: []string{"new", name}}, Metadata: map[string]string{"of": "file"},
		}})
	}
	return groups
}

// What an operator cordoned stays so, and is told.
func TestPlanNamesCordonedMachines(t *testing.T) {
	cordoned := func(m *api.Machine) { m.Cordoned = true }
	current := []api.Machine{made("a", "app", 1, cordoned), made("b", "app", 1), made("c", "app", 1, cordoned)}
	plan, err := Deploy(Wanted{App: "a", Groups: groups("app"), Counts: map[string]int{"app": 2}}, current)
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.Cordoned(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("it names %q: c is destroyed and b was not cordoned", got)
	}
}

// Groups of such names want the same name of a Machine.
func TestNamesOfGroupsMeet(t *testing.T) {
	n := newNamer([]api.Machine{{Name: "a-1"}})
	got := []string{n.next("a"), n.next("a-2"), n.next("a"), n.next("a-2")}
	if want := []string{"a-2", "a-2-1", "a-3", "a-2-2"}; !slices.Equal(got, want) {
		t.Errorf("names %q, expected %q", got, want)
	}
}

func TestDeployPlan(t *testing.T) {
	for _, row := range []struct {
		name    string
		current []api.Machine
		groups  []string
		counts  map[string]int
		release int
		want    string
	}{
		{"the first", nil, []string{"app"}, nil, 1, "create app app-1"},
		{"the first of two groups", nil, []string{"web", "worker"}, nil, 1, "create web web-1, create worker worker-1"},
		{"the first with a count", nil, []string{"app"}, map[string]int{"app": 2}, 1, "create app app-1, create app app-2"},
		{"again", []api.Machine{made("a", "app", 3)}, []string{"app"}, nil, 4, "update app a"},
		{"as many as there are", []api.Machine{made("a", "app", 3), made("b", "app", 3)}, []string{"app"}, nil, 4, "update app a, update app b"},
		{"more", []api.Machine{made("a", "app", 1)}, []string{"app"}, map[string]int{"app": 3}, 2, "create app app-1, create app app-2, update app a"},
		{"fewer", []api.Machine{made("a", "app", 1), made("b", "app", 1)}, []string{"app"}, map[string]int{"app": 1}, 2, "update app a, destroy app b"},
		{"none", []api.Machine{made("a", "app", 1)}, []string{"app"}, map[string]int{"app": 0}, 2, "destroy app a"},
		{"those that run are kept", []api.Machine{made("a", "app", 1, crashed), made("b", "app", 1)}, []string{"app"}, map[string]int{"app": 1}, 2, "update app b, destroy app a"},
		{"the newest release is kept", []api.Machine{made("a", "app", 1), made("b", "app", 2)}, []string{"app"}, map[string]int{"app": 1}, 3, "update app b, destroy app a"},
		{"one that was never started is", []api.Machine{made("a", "app", 1, unlaunched)}, []string{"app"}, nil, 2, "update app a"},
		{"a stopped one stays stopped", []api.Machine{made("a", "app", 1, stopped)}, []string{"app"}, nil, 2, "update app a!"},
		{"one that crashed starts", []api.Machine{made("a", "app", 1, crashed)}, []string{"app"}, nil, 2, "update app a"},
		{"a group is gone", []api.Machine{made("a", "web", 1), made("b", "worker", 1)}, []string{"web"}, nil, 2, "update web a, destroy worker b"},
		{"a group is new", []api.Machine{made("a", "web", 1)}, []string{"web", "worker"}, nil, 2, "create worker worker-1, update web a"},
		{"another's stay", []api.Machine{made("a", "app", 1, foreign)}, []string{"app"}, nil, 1, "create app app-1"},
		{"names that are taken", []api.Machine{made("a", "app", 1, foreign, named("app-1"))}, []string{"app"}, nil, 1, "create app app-2"},
		{"the lowest free name", []api.Machine{made("a", "app", 1, named("app-2"))}, []string{"app"}, map[string]int{"app": 3}, 2, "create app app-1, create app app-3, update app app-2"},
		{"a count of another group stays", []api.Machine{made("a", "web", 1), made("b", "web", 1)}, []string{"web", "worker"}, map[string]int{"worker": 2}, 2, "create worker worker-1, create worker worker-2, update web a, update web b"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := slices.Clone(row.current)
			plan, err := Deploy(Wanted{App: "a", Region: "ams", Groups: groups(row.groups...), Counts: row.counts}, row.current)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(show(plan), ", "); got != row.want || plan.Release != row.release {
				t.Errorf("it plans %q of release %d, expected %q of %d", got, plan.Release, row.want, row.release)
			}
			for _, step := range plan.Steps {
				if step.Action == Destroy {
					continue
				}
				want := map[string]string{"of": "file", groupKey: step.Group, platformKey: platform, releaseKey: strconv.Itoa(row.release)}
				if diff := cmp.Diff(want, map[string]string(step.Config.Metadata)); diff != "" {
					t.Error(diff)
				}
			}
			if diff := cmp.Diff(before, row.current); diff != "" {
				t.Errorf("it changed what it was given: %s", diff)
			}
		})
	}
}

// What was set otherwise than by a file outlives a deploy.
func TestDeployKeeps(t *testing.T) {
	plan, err := Deploy(Wanted{App: "a", Groups: groups("app")}, []api.Machine{made("a", "app", 1, inRole)})
	if err != nil {
		t.Fatal(err)
	}
	got := plan.Steps[0].Config
	if got.Metadata["role"] != "primary" || got.DNS.Hostname != "db" || got.Init.Exec[0] != "new" {
		t.Errorf("it gets %+v", got)
	}
}

func TestScalePlan(t *testing.T) {
	web := []api.Machine{made("a", "web", 2), made("b", "web", 2), made("c", "worker", 2)}
	for _, row := range []struct {
		name, want string
		counts     map[string]int
	}{
		{"nothing", "", nil},
		{"the same", "", map[string]int{"web": 2}},
		{"more", "create web web-1", map[string]int{"web": 3}},
		{"fewer", "destroy web b", map[string]int{"web": 1}},
		{"both", "create worker worker-1, destroy web a, destroy web b", map[string]int{"web": 0, "worker": 2}},
	} {
		t.Run(row.name, func(t *testing.T) {
			plan, err := Scale("a", "", row.counts, web)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(show(plan), ", "); got != row.want || plan.Release != 2 {
				t.Errorf("it plans %q of release %d, expected %q of 2", got, plan.Release, row.want)
			}
			for _, step := range plan.Steps {
				if step.Action == Create && step.Config.Metadata[groupKey] != step.Group {
					t.Errorf("a new Machine of %s gets %v", step.Group, step.Config.Metadata)
				}
			}
		})
	}
}

func TestCountsRefused(t *testing.T) {
	for _, row := range []struct {
		counts map[string]int
		want   string
	}{
		{map[string]int{"web": 1}, `no process group "web"`},
		{map[string]int{"app": -1}, "expected 0 or more"},
	} {
		_, err := Deploy(Wanted{App: "a", Groups: groups("app"), Counts: row.counts}, nil)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("counts %v: the error is %v, expected %q", row.counts, err, row.want)
		}
	}
}
