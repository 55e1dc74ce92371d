package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// load reads a configuration from flags, variables and the content of a file.
func load(t *testing.T, flags []string, environment []string, file string) (Loaded, string, error) {
	t.Helper()
	set := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	s := AddFlags(set)
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	s.environ = func() []string {
		return append(environment, "SIXPN_AGENT_CONFIG="+path, "SIXPN_AGENTS=no", "PATH=/bin")
	}
	if err := set.Parse(flags); err != nil {
		return Loaded{}, path, err
	}
	loaded, err := s.read()
	return loaded, path, err
}

func setting(l Loaded, key string) Setting {
	for _, s := range l.Settings {
		if s.Key == key {
			return s
		}
	}
	return Setting{}
}

func TestSourcesInOrder(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name        string
		flags       []string
		environment []string
		file        string
		value, from string // of mtu
	}{
		{"nobody", nil, nil, "", "", "default: what the mesh takes, or 1420 for a host that is alone"},
		{"the file", nil, nil, "mtu: 1300", "1300", "FILE: mtu"},
		{"a key without a value", nil, nil, "mtu:", "", "default: what the mesh takes, or 1420 for a host that is alone"},
		{"the environment", nil, []string{"SIXPN_AGENT_MTU=1301"}, "mtu: 1300", "1301", "environment variable SIXPN_AGENT_MTU"},
		{"an empty variable", nil, []string{"SIXPN_AGENT_MTU="}, "mtu: 1300", "1300", "FILE: mtu"},
		{"a flag", []string{"--mtu", "1302"}, []string{"SIXPN_AGENT_MTU=1301"}, "mtu: 1300", "1302", "flag --mtu"},
		{"a flag with the default", []string{"--mtu", "1420"}, nil, "mtu: 1300", "1420", "flag --mtu"},
	} {
		got, path, err := load(t, row.flags, row.environment, row.file)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		want := Setting{"mtu", row.value, strings.ReplaceAll(row.from, "FILE", path)}
		if s := setting(got, "mtu"); s != want || got.File != path {
			t.Errorf("%s: %+v of file %s, expected %+v", row.name, s, got.File, want)
		}
	}
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	long := "/run/" + strings.Repeat("x", 100)
	for _, row := range []struct {
		name        string
		flags       []string
		environment []string
		file        string
		says        []string
	}{
		{"a number out of range", nil, nil, "mtu: 100", []string{"FILE: mtu", `"100"`, "1280 to 9000"}},
		{"no number", nil, nil, "mtu: many", []string{"FILE: mtu", `"many"`, "whole number"}},
		{"a list", nil, nil, "mtu: [1300]", []string{"FILE: mtu", "not a list"}},
		{"a mapping", nil, nil, "mtu: {a: 1}", []string{"FILE: mtu", "not a mapping"}},
		{"a duration without unit", nil, nil, "stop_timeout: 5", []string{"FILE: stop_timeout", `"5"`, "unit"}},
		{"a duration of nothing", nil, nil, "stop_timeout: 0s", []string{"FILE: stop_timeout", "above 0"}},
		{"a switch", nil, nil, "reset_flows: maybe", []string{"FILE: reset_flows", "true or false"}},
		{"an unknown key", nil, nil, "mut: 1300", []string{"FILE: mut", `unknown setting "mut"`, `did you mean "mtu"?`}},
		{"an unknown key near none", nil, nil, "colour: red", []string{"FILE: colour", "expected one of name, state_dir"}},
		{"a flag's name in the file", nil, nil, "stop-timeout: 5s", []string{`did you mean "stop_timeout"?`}},
		{"no YAML", nil, nil, "mtu: [", []string{"FILE", "expected YAML"}},
		{"twice", nil, nil, "mtu: 1300\nmtu: 1301", []string{"FILE", "line 2"}},
		{"no mapping", nil, nil, "- mtu", []string{"FILE", "expected YAML"}},
		{"a name", nil, nil, "name: Not A Name", []string{"FILE: name", "lower-case letters"}},
		{"a region", nil, nil, "region: nowhere", []string{"FILE: region", `"nowhere"`, "three-letter code"}},
		{"a host's name", nil, nil, "host_name: -x-", []string{"FILE: host_name", "expected"}},
		{"a relative path", nil, nil, "run_dir: run", []string{"FILE: run_dir", "absolute"}},
		{"a mode", nil, nil, "mesh: vxlan", []string{"FILE: mesh", "wireguard, native"}},
		{"a long path", nil, nil, "run_dir: " + long, []string{"FILE: run_dir", "too long", "107 are possible"}},
		{"an upstream", nil, nil, "upstreams: [192.0.2.1, dns.example]", []string{"FILE: upstreams", "dns.example", "IP addresses"}},
		{"metrics", nil, nil, "metrics_listen: 9464", []string{"FILE: metrics_listen", "an address and a port", `or "off"`}},
		{"a log level", nil, nil, "log_level: loud", []string{"FILE: log_level", "debug, info, warn, error"}},
		{"no regions", nil, nil, "regions: [lab]", []string{"FILE: regions", "mappings"}},
		{"a key of a region", nil, nil, "regions: [{code: lab, laditude: 1}]", []string{"FILE: regions", `did you mean "latitude"?`}},
		{"degrees", nil, nil, "regions: [{code: lab, latitude: north}]", []string{"FILE: regions", "a number"}},
		{"a variable", nil, []string{"SIXPN_AGENT_MTU=100"}, "", []string{"environment variable SIXPN_AGENT_MTU", `"100"`, "1280 to 9000"}},
		{"an unknown variable", nil, []string{"SIXPN_AGENT_MUT=1300"}, "", []string{"environment variable SIXPN_AGENT_MUT", `did you mean "mtu"?`}},
		{"a flag", []string{"--mtu", "100"}, nil, "", []string{"--mtu", `"100"`, "1280 to 9000"}},
		{"a region by flag", []string{"--region", "nowhere"}, nil, "region: fra", []string{"flag --region", "nowhere"}},
		{"no such file", []string{"--config", "/nowhere/agent.yaml"}, nil, "", []string{"/nowhere/agent.yaml", "cannot be read"}},
	} {
		_, path, err := load(t, row.flags, row.environment, row.file)
		if err == nil {
			t.Errorf("%s: accepted", row.name)
			continue
		}
		var wrong *ConfigError
		// The library makes the error of a flag's value, and the command line ends with 2.
		if !errors.As(err, &wrong) && row.name != "a flag" {
			t.Errorf("%s: %v is no ConfigError", row.name, err)
		}
		for _, says := range row.says {
			if says = strings.ReplaceAll(says, "FILE", path); !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %q does not say %q", row.name, err, says)
			}
		}
	}
}

// Lists and regions have forms of their own in each source.
func TestSeveralValues(t *testing.T) {
	t.Parallel()
	const upstreams, regions = "192.0.2.1:53,[2001:db8::53]:5353", "lab,52.5,-13.4,Our cellar, left;loc,1,2,Loch"
	for name, row := range map[string]struct {
		flags, environment []string
		file               string
	}{
		"flags": {[]string{"--upstream", "192.0.2.1", "--upstream", "[2001:db8::53]:5353",
			"--regions", "lab,52.5,-13.4,Our cellar, left", "--regions", "loc,1,2,Loch"}, nil, "upstreams: [192.0.2.9]"},
		"environment": {nil, []string{"SIXPN_AGENT_UPSTREAMS=192.0.2.1, [2001:db8::53]:5353", "SIXPN_AGENT_REGIONS=" + regions}, "upstreams: [192.0.2.9]"},
		"file": {nil, nil, "upstreams:\n  - 192.0.2.1\n  - '[2001:db8::53]:5353'\nregions:\n" +
			"  - {code: lab, name: 'Our cellar, left', latitude: 52.5, longitude: -13.4}\n  - {code: loc, name: Loch, latitude: 1, longitude: 2}"},
	} {
		got, _, err := load(t, row.flags, row.environment, row.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if u, r := setting(got, "upstreams").Value, setting(got, "regions").Value; u != upstreams || r != regions {
			t.Errorf("%s: upstreams %s, regions %s, expected %s and %s", name, u, r, upstreams, regions)
		}
	}
	if _, _, err := load(t, nil, nil, "region: lab\nregions: [{code: lab, name: Our cellar, latitude: 52.5, longitude: 13.4}]"); err != nil {
		t.Errorf("a host in a region of its own: %v", err)
	}
}

// exampleToken has the form of an invitation's; nobody is asked whether it is one.
const exampleToken = "sixpn1.eyJhIjpbIjE5Mi4wLjIuMTo1MTgyMSJdLCJmIjoiQVFFQkFRRUJBUUVCQVFFQkFRRUJBUUVCQVFFQkFRRUJBUUVCQVFFQkFRRT0iLCJpIjoiZXhhbXBsZSIsInMiOiJjMlZqY21WMCJ9aShSTg"

// Each field of the table works in every source, as its own text, and is told from
// the others.
func TestFields(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	// What some need beside them.
	needs := map[string]string{"join": "underlay: 192.0.2.1"}
	for _, key := range []string{"store_cert", "store_key", "store_ca", "store_user"} {
		needs[key] = "store: https://192.0.2.1:2379"
	}
	needs["store_key"] += "\nstore_cert: /etc/sixpn/client.pem"
	for _, f := range fields {
		if seen[f.key] || seen[f.flag()] || f.doc == "" || (f.def == "") == (f.derived == "") {
			t.Errorf("%s: its key or flag is another's too, or it has no description, or not one default", f.key)
		}
		seen[f.key], seen[f.flag()] = true, true
		example := f.example
		if example == "" {
			example = f.def
		}
		if f.key == "join" {
			example = exampleToken
		}
		if example == "false" {
			example = "true"
		}
		var c Config
		if err := f.of(&c).Set(example); err != nil {
			t.Fatalf("%s: example %q: %v", f.key, example, err)
		}
		said := f.of(&c).String()
		if err := f.of(&c).Set(said); err != nil || f.of(&c).String() != said {
			t.Errorf("%s: %q is not taken back: %v", f.key, said, err)
		}
		if f.key == "region" { // the example's is not one of a test's own
			example = "fra"
		}
		for source, row := range map[string][3]string{
			"flag":        {"--" + f.flag() + "=" + example, "", ""},
			"environment": {"", f.env() + "=" + example, ""},
			"file":        {"", "", f.key + ": '" + example + "'"},
		} {
			got, _, err := load(t, fieldsOf(row[0]), fieldsOf(row[1]), row[2]+"\n"+needs[f.key])
			if err != nil {
				t.Errorf("%s by %s: %v", f.key, source, err)
				continue
			}
			want := said
			if f.secret {
				want = "(not shown)"
			}
			if s := setting(got, f.key); strings.HasPrefix(s.From, "default") || s.Value != want {
				t.Errorf("%s by %s is %+v, expected %q", f.key, source, s, want)
			}
		}
	}
}

func fieldsOf(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// TestReference: the page is what this build would write, and its example works.
func TestReference(t *testing.T) {
	t.Parallel()
	var page bytes.Buffer
	WriteReference(&page)
	kept, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, page.Bytes()) {
		t.Error("docs/configuration.md is not what the table of settings makes: run make generate")
	}
	_, example, _ := strings.Cut(page.String(), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	got, _, err := load(t, nil, nil, example)
	if err != nil {
		t.Fatalf("the example: %v\n%s", err, example)
	}
	for _, f := range fields {
		if s := setting(got, f.key); f.example != "" && !f.alone && strings.HasPrefix(s.From, "default") {
			t.Errorf("the example does not set %s", f.key)
		}
	}
}

// A file that nobody names is read for the agent whose name it has.
func TestFileOfAName(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name               string
		flags, environment []string
		file, content      string
		mtu                string
		wrong              string // "": it is right
	}{
		{"none", nil, nil, "edge.yaml", "mtu: 1300", "", ""},
		{"of the default name", nil, nil, "default.yaml", "mtu: 1300", "1300", ""},
		{"of the name by flag", []string{"--name", "edge"}, []string{"SIXPN_AGENT_NAME=other"}, "edge.yaml", "mtu: 1300", "1300", ""},
		{"of the name by variable", nil, []string{"SIXPN_AGENT_NAME=edge"}, "edge.yaml", "name: edge\nmtu: 1300", "1300", ""},
		{"of another agent", nil, nil, "default.yaml", "name: edge", "", "default.yaml: name"},
	} {
		set := pflag.NewFlagSet("agent", pflag.ContinueOnError)
		s := AddFlags(set)
		s.directory, s.environ = t.TempDir(), func() []string { return row.environment }
		if err := errors.Join(set.Parse(row.flags), os.WriteFile(filepath.Join(s.directory, row.file), []byte(row.content), 0o600)); err != nil {
			t.Fatal(err)
		}
		got, err := s.read()
		switch {
		case row.wrong != "":
			if err == nil || !strings.Contains(err.Error(), row.wrong) {
				t.Errorf("%s: %v, expected an error about %s", row.name, err, row.wrong)
			}
		case err != nil:
			t.Errorf("%s: %v", row.name, err)
		case setting(got, "mtu").Value != row.mtu:
			t.Errorf("%s: MTU %s, expected %s", row.name, setting(got, "mtu").Value, row.mtu)
		}
	}
}

// SIGHUP takes up what it can, and says what waits.
func TestReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	s := AddFlags(set)
	s.environ = func() []string { return nil }
	if err := set.Parse([]string{"--config", path, "--region", "fra"}); err != nil {
		t.Fatal(err)
	}
	write("log_level: info\nmtu: 1300")
	before, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	level := new(slog.LevelVar)
	for _, row := range []struct {
		file  string
		level slog.Level
		says  string
	}{
		{"log_level: debug\nmtu: 1300", slog.LevelDebug, "setting=log_level value=debug"},
		{"log_level: error\nmtu: 1400", slog.LevelError, "setting=mtu value=1400"},
		{"log_level: warn\nmtu: 1400", slog.LevelWarn, "setting=mtu value=1400"}, // still waits
		{"log_level: loud\nmtu: 1300", slog.LevelWarn, "it is wrong"},
		{"region: ams\nmtu: 1300", slog.LevelInfo, "was read again"}, // the flag counts
	} {
		log.Reset()
		write(row.file)
		before = s.reload(before, logger, level)
		if level.Level() != row.level || !strings.Contains(log.String(), row.says) || strings.Contains(log.String(), "setting=region") {
			t.Errorf("%q: level %v, log %q, expected %v and %q", row.file, level.Level(), log.String(), row.level, row.says)
		}
	}
}

// TestSecretsAreNotRepeated: whatever is wrong with one, the error does not have it.
func TestSecretsAreNotRepeated(t *testing.T) {
	t.Parallel()
	for _, f := range fields {
		if !f.secret {
			continue
		}
		const damaged = "sixpn1.damaged"
		for source, row := range map[string][3]string{
			"flag":        {"--" + f.flag() + "=" + damaged, "", ""},
			"environment": {"", f.env() + "=" + damaged, ""},
			"file":        {"", "", f.key + ": " + damaged},
		} {
			set := pflag.NewFlagSet("agent", pflag.ContinueOnError)
			s := AddFlags(set)
			s.directory, s.environ = t.TempDir(), func() []string { return fieldsOf(row[1]) }
			err := os.WriteFile(filepath.Join(s.directory, "default.yaml"), []byte(row[2]), 0o600)
			if err = errors.Join(err, set.Parse(fieldsOf(row[0]))); err == nil {
				_, err = s.read()
			}
			if err == nil || strings.Contains(err.Error(), damaged) {
				t.Errorf("%s by %s: %v", f.key, source, err)
			}
		}
	}
}

// What travels as it is needs an underlay that can route it.
func TestNativeNeedsIPv6(t *testing.T) {
	t.Parallel()
	for underlay, refused := range map[string]bool{"": true, "192.0.2.1": true, "192.0.2.1:5000": true, "::ffff:192.0.2.1": true, "2001:db8::1": false, "[2001:db8::1]:5000": false} {
		for mode, may := range map[string]bool{"native": !refused, "wireguard": true, "": true} {
			c := Config{Mesh: mode, Underlay: underlay}
			err := c.complete()
			wrong, _ := errors.AsType[*ConfigError](err)
			if (err == nil) != may || err != nil && (wrong == nil || wrong.Key != "mesh" || !strings.Contains(wrong.Message, "--underlay")) {
				t.Errorf("mesh %q over underlay %q: %v, expected it to be accepted: %v", mode, underlay, err, may)
			}
		}
	}
}
