package dashboards_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
)

// rule is one alert of alerts.yaml.
type rule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

// read reads a YAML file into a structure that reads JSON.
func read(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	values, err := yaml.Parser().Unmarshal(content)
	must(t, err)
	content, err = json.Marshal(values)
	must(t, err)
	must(t, json.Unmarshal(content, into))
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	read(t, "alerts.yaml", &file)
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("alerts.yaml has no rule")
	}
	return all
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, output)
	}
}

// Every rule fires when it should and at no other time: alerts_test.yaml says when.
func TestRules(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "--lint-fatal", "alerts.yaml")
	promtool(t, "test", "rules", "alerts_test.yaml")

	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				AlertName string `json:"alertname"`
				ExpAlerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	read(t, "alerts_test.yaml", &file)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, at := range test.AlertRuleTest {
			if len(at.ExpAlerts) > 0 {
				fires[at.AlertName] = true
			} else {
				silent[at.AlertName] = true
			}
		}
	}
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if seen[r.Alert] {
			t.Errorf("%s: there are two rules of this name", r.Alert)
		}
		seen[r.Alert] = true
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: alerts_test.yaml should show it firing and not firing", r.Alert)
		}
		if !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) || r.Annotations["summary"] == "" {
			t.Errorf("%s: severity %q, summary %q", r.Alert, r.Labels["severity"], r.Annotations["summary"])
		}
		for _, metric := range metricsIn(r.Expr) {
			if !exists(metric) {
				t.Errorf("%s: there is no metric %s", r.Alert, metric)
			}
		}
	}
}

// Every alert has a section in the runbook that its URL leads to, and every section an
// alert.
func TestRunbook(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../docs/runbook.md")
	must(t, err)
	sections := map[string]string{} // by name
	parts := regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatchIndex(string(content), -1)
	for i, part := range parts {
		end := len(content)
		if i+1 < len(parts) {
			end = parts[i+1][0]
		}
		sections[string(content[part[2]:part[3]])] = string(content[part[1]:end])
	}
	for _, r := range rules(t) {
		text, ok := sections[r.Alert]
		if !ok {
			t.Errorf("%s: docs/runbook.md has no section of this name", r.Alert)
			continue
		}
		delete(sections, r.Alert)
		// The anchor of a heading is what GitHub makes of it.
		if want := "/docs/runbook.md#" + strings.ToLower(r.Alert); !strings.HasSuffix(r.Annotations["runbook_url"], want) {
			t.Errorf("%s: runbook_url is %q, which should end with %s", r.Alert, r.Annotations["runbook_url"], want)
		}
		for _, what := range []string{"**Means**", "**Find out**", "**Do**"} {
			if !strings.Contains(text, what) {
				t.Errorf("%s: its section has no %s", r.Alert, what)
			}
		}
	}
	for name := range sections {
		t.Errorf("docs/runbook.md has a section %s, which is no alert", name)
	}
	for _, link := range regexp.MustCompile(`\]\((#[a-z]+)\)`).FindAllStringSubmatch(string(content), -1) {
		if !strings.Contains(strings.ToLower(string(content)), "### "+link[1][1:]+"\n") {
			t.Errorf("docs/runbook.md links to %s, which is no section", link[1])
		}
	}
}
