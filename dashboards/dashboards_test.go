package dashboards_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/dashboards"
	"github.com/sixpn/sixpn/observe"
)

// The files are what go generate makes of the description.
func TestFiles(t *testing.T) {
	t.Parallel()
	var names []string
	for _, d := range dashboards.All() {
		names = append(names, d.Name+".json")
		want, err := d.JSON()
		must(t, err)
		have, err := os.ReadFile(d.Name + ".json")
		must(t, err)
		if string(have) != string(want) {
			t.Errorf("%s.json is not what the description says: run go generate ./dashboards", d.Name)
		}
	}
	files, err := filepath.Glob("*.json")
	must(t, err)
	slices.Sort(names)
	if !slices.Equal(files, names) {
		t.Errorf("the files are %v, the dashboards %v", files, names)
	}
}

// units are those of Grafana's list that are in use.
var units = []string{"none", "s", "bytes", "Bps", "pps", "cps", "reqps", "percentunit"}

func TestPanels(t *testing.T) {
	t.Parallel()
	titles := map[string]bool{}
	for _, d := range dashboards.All() {
		if titles[d.Title] || d.Title == "" || !sentence(d.Description) {
			t.Errorf("%s: the title %q should be its own, and the description a sentence: %q", d.Name, d.Title, d.Description)
		}
		titles[d.Title] = true
		panels := map[string]bool{}
		for _, row := range d.Rows {
			for _, p := range row.Panels {
				where := d.Name + ", " + p.Title
				if panels[p.Title] {
					t.Errorf("%s: there are two panels of this title", where)
				}
				panels[p.Title] = true
				if !slices.Contains(units, p.Unit) {
					t.Errorf("%s: unit %q is none of %v", where, p.Unit, units)
				}
				if !sentence(p.Description) {
					t.Errorf("%s: the description %q is no sentence", where, p.Description)
				}
				if len(p.Queries) == 0 {
					t.Errorf("%s: it asks nothing", where)
				}
				for _, q := range p.Queries {
					if len(p.Queries) > 1 && q.Legend == "" {
						t.Errorf("%s: one of several queries has no legend: %s", where, q.Expr)
					}
					for _, metric := range metricsIn(q.Expr) {
						if !exists(metric) {
							t.Errorf("%s: there is no metric %s", where, metric)
						}
					}
				}
			}
		}
		for _, v := range d.Variables {
			if !exists(v.Metric) {
				t.Errorf("%s: the variable %s takes its values from %s, which is no metric", d.Name, v.Label, v.Metric)
			}
		}
	}
}

func sentence(s string) bool { return s != "" && strings.HasSuffix(s, ".") }

// What Grafana needs of a dashboard's file.
func TestGrafana(t *testing.T) {
	t.Parallel()
	type place struct{ X, Y, W, H int }
	type target struct {
		RefID      string `json:"refId"`
		Expr       string
		DataSource struct{ Type, UID string }
	}
	type panel struct {
		ID      int
		Type    string
		Title   string
		GridPos place
		Targets []target
		Options map[string]any
	}
	for _, d := range dashboards.All() {
		content, err := d.JSON()
		must(t, err)
		var file struct {
			UID           string
			SchemaVersion int
			Panels        []panel
			Templating    struct {
				List []struct{ Name, Type string }
			}
		}
		must(t, json.Unmarshal(content, &file))
		if file.UID != "sixpn-"+d.Name || len(file.UID) > 40 || file.SchemaVersion == 0 {
			t.Errorf("%s: uid %q, schema version %d", d.Name, file.UID, file.SchemaVersion)
		}
		variables := map[string]bool{"__rate_interval": true}
		for _, v := range file.Templating.List {
			variables[v.Name] = true
		}
		if !variables["datasource"] || !variables["host"] {
			t.Errorf("%s: there is no variable for the data source, or for the host: %v", d.Name, variables)
		}
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, p := range file.Panels {
			if ids[p.ID] || p.ID == 0 {
				t.Errorf("%s, %s: id %d is not its own", d.Name, p.Title, p.ID)
			}
			ids[p.ID] = true
			g := p.GridPos
			if g.X+g.W > 24 || g.W == 0 || g.H == 0 {
				t.Errorf("%s, %s: it is at %+v, the grid is 24 wide", d.Name, p.Title, g)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other, ok := taken[[2]int{x, y}]; ok {
						t.Fatalf("%s: %s lies on %s", d.Name, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			for _, target := range p.Targets {
				if target.DataSource.Type != "prometheus" || target.DataSource.UID != "${datasource}" {
					t.Errorf("%s, %s: its data source is %+v, not the variable", d.Name, p.Title, target.DataSource)
				}
				for _, name := range regexp.MustCompile(`\$\{?([a-z_]+)`).FindAllStringSubmatch(target.Expr, -1) {
					if !variables[name[1]] {
						t.Errorf("%s, %s: there is no variable %s", d.Name, p.Title, name[1])
					}
				}
			}
		}
	}
}

// of others are the metrics of Prometheus, Go and etcd that queries name.
var ofOthers = []string{
	"up", "process_cpu_seconds_total", "process_resident_memory_bytes",
	"etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds",
}

// exists says whether somebody serves a metric.
func exists(metric string) bool {
	metric = strings.TrimSuffix(metric, "_bucket")
	return slices.Contains(observe.Names(), metric) || slices.Contains(ofOthers, metric)
}

var (
	quoted     = regexp.MustCompile(`"[^"]*"`)
	metricName = regexp.MustCompile(`\b((?:sixpn|etcd|process|go)_[a-z0-9_]+|up)\b`)
)

// metricsIn lists the metrics that an expression names.
func metricsIn(expression string) []string {
	found := metricName.FindAllString(quoted.ReplaceAllString(expression, `""`), -1)
	slices.Sort(found)
	return slices.Compact(found)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// concrete is a query as Grafana sends it when all values are chosen.
func concrete(d dashboards.Dashboard, expression, interval string) string {
	replace := []string{"$__rate_interval", interval, "$host", ".*"}
	for _, v := range d.Variables {
		replace = append(replace, "$"+v.Label, ".*")
	}
	return strings.NewReplacer(replace...).Replace(expression)
}

func name(d dashboards.Dashboard, p dashboards.Panel, query int) string {
	return fmt.Sprintf("%s/%s/%c", d.Name, p.Title, 'A'+query)
}
