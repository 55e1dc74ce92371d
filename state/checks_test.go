package state_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/state"
)

func TestHealthy(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		checks []state.CheckStatus
		want   bool // of service 1
	}{
		{"none", nil, true},
		{"passing", []state.CheckStatus{{Service: 1, Status: state.CheckPassing}}, true},
		{"not answered yet", []state.CheckStatus{{Service: 1, Status: state.CheckWarning}}, true},
		{"critical", []state.CheckStatus{{Service: 1, Status: state.CheckCritical}}, false},
		{"critical among others", []state.CheckStatus{{Service: 1, Status: state.CheckPassing}, {Service: 1, Status: state.CheckCritical}}, false},
		{"of another service", []state.CheckStatus{{Service: 0, Status: state.CheckCritical}}, true},
		{"of the Machine", []state.CheckStatus{{Service: -1, Status: state.CheckCritical}}, false},
	} {
		if got := (state.Machine{Checks: row.checks}).Healthy(1); got != row.want {
			t.Errorf("%s: healthy %v, want %v", row.name, got, row.want)
		}
	}
}

func TestHealthChecks(t *testing.T) {
	t.Parallel()
	config := state.MachineConfig{
		Services: []state.Service{
			{InternalPort: 8080, Checks: []state.Check{{Type: "tcp"}, {Type: "http", Port: 81, Interval: time.Minute, Timeout: time.Second}}},
			{InternalPort: 9000, Checks: []state.Check{{Type: "tcp", GracePeriod: time.Second}}},
		},
		Checks: map[string]state.Check{
			"b": {Type: "http", Port: 90, Method: "HEAD", Path: "/up", Protocol: "https"},
			"a": {Type: "tcp"},
		},
	}
	second, fifteen := 2*time.Second, 15*time.Second
	want := []state.NamedCheck{
		{Name: "servicecheck-00-tcp-8080", Service: 0, Check: state.Check{Type: "tcp", Port: 8080, Interval: fifteen, Timeout: second}},
		{Name: "servicecheck-01-http-81", Service: 0, Check: state.Check{Type: "http", Port: 81, Interval: time.Minute, Timeout: time.Second, Method: "GET", Path: "/", Protocol: "http"}},
		{Name: "servicecheck-02-tcp-9000", Service: 1, Check: state.Check{Type: "tcp", Port: 9000, Interval: fifteen, Timeout: second, GracePeriod: time.Second}},
		{Name: "a", Service: -1, Check: state.Check{Type: "tcp", Port: 8080, Interval: fifteen, Timeout: second}},
		{Name: "b", Service: -1, Check: state.Check{Type: "http", Port: 90, Interval: fifteen, Timeout: second, Method: "HEAD", Path: "/up", Protocol: "https"}},
	}
	if d := cmp.Diff(want, config.HealthChecks()); d != "" {
		t.Errorf("checks (- wanted, + got):\n%s", d)
	}
}

func TestValidateChecks(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*state.Check)
		field  string // "" for one that is right
	}{
		{"good", func(*state.Check) {}, ""},
		{"the least", func(c *state.Check) { *c = state.Check{Type: "tcp"} }, ""},
		{"no type", func(c *state.Check) { c.Type = "" }, ".type"},
		{"type", func(c *state.Check) { c.Type = "udp" }, ".type"},
		{"a path of tcp", func(c *state.Check) { c.Type = "tcp" }, ".type"},
		{"interval too short", func(c *state.Check) { c.Interval = time.Millisecond }, ".interval"},
		{"interval too long", func(c *state.Check) { c.Interval = 2 * time.Hour }, ".interval"},
		{"interval negative", func(c *state.Check) { c.Interval = -1 }, ".interval"},
		{"timeout", func(c *state.Check) { c.Timeout = time.Hour }, ".timeout"},
		{"grace", func(c *state.Check) { c.GracePeriod = -time.Second }, ".grace_period"},
		{"method", func(c *state.Check) { c.Method = "get" }, ".method"},
		{"protocol", func(c *state.Check) { c.Protocol = "h2" }, ".protocol"},
		{"path", func(c *state.Check) { c.Path = "up" }, ".path"},
		{"path with a space", func(c *state.Check) { c.Path = "/a b" }, ".path"},
		{"path too long", func(c *state.Check) { c.Path = "/" + strings.Repeat("a", state.MaxCheckPath) }, ".path"},
		{"name of a header", func(c *state.Check) { c.Headers[0].Name = "a b" }, ".headers"},
		{"value of a header", func(c *state.Check) { c.Headers[0].Values[0] = "a\r\nb" }, ".headers"},
		{"headers", func(c *state.Check) { c.Headers = make([]state.Header, state.MaxCheckHeaders+1) }, ".headers"},
	} {
		check := state.Check{
			Type: "http", Port: 81, Interval: time.Minute, Timeout: time.Second, GracePeriod: time.Second, Method: "GET", Path: "/up?a=b",
			Protocol: "https", TLSServerName: "web", Headers: []state.Header{{Name: "Host", Values: []string{"web"}}},
		}
		row.change(&check)
		service := state.Service{Protocol: "tcp", InternalPort: 8080, Ports: []state.ServicePort{{Port: 80}}, Checks: []state.Check{check}}
		config := state.MachineConfig{Init: state.Init{Exec: []string{"true"}}, Services: []state.Service{service}}
		expectField(t, row.name, state.ValidateMachineConfig(config), "config.services[0].checks[0]", row.field)
		config.Services[0].Checks, config.Checks = nil, map[string]state.Check{"up": check}
		expectField(t, row.name, state.ValidateMachineConfig(config), "config.checks.up", row.field)
	}
	config := state.MachineConfig{Init: state.Init{Exec: []string{"true"}}, Checks: map[string]state.Check{"up": {Type: "tcp"}}}
	expectField(t, "no port", state.ValidateMachineConfig(config), "config.checks.up", ".port")
	config.Checks = map[string]state.Check{"a b": {Type: "tcp", Port: 1}}
	expectField(t, "name", state.ValidateMachineConfig(config), "config.checks", "")
}

// expectField demands an error about a field, or none if the field is "" and the
// path ends with a check.
func expectField(t *testing.T, name string, err error, path, field string) {
	t.Helper()
	var refused *state.Error
	switch got := errors.As(err, &refused); {
	case !got && (field != "" || path == "config.checks"):
		t.Errorf("%s: accepted, expected an error about %s%s", name, path, field)
	case got && refused.Field != path+field:
		t.Errorf("%s: refused for %s (%v), expected %s%s", name, refused.Field, err, path, field)
	case got && field == "" && path != "config.checks":
		t.Errorf("%s: refused: %v", name, err)
	}
}
