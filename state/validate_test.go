package state_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// TestValidateMachineConfig changes one thing of a good configuration a row; an
// empty field means that the result is still good.
func TestValidateMachineConfig(t *testing.T) {
	services := func(c *state.MachineConfig) *state.Service { return &c.Services[0] }
	port := func(c *state.MachineConfig) *state.ServicePort { return &c.Services[0].Ports[0] }
	for name, row := range map[string]struct {
		field  string
		change func(*state.MachineConfig)
	}{
		"as it is": {"", func(*state.MachineConfig) {}},
		"least":    {"", func(c *state.MachineConfig) { *c = state.MachineConfig{Init: c.Init} }},

		"no command":         {"config.init.exec", func(c *state.MachineConfig) { c.Init.Exec = nil }},
		"empty command":      {"config.init.exec", func(c *state.MachineConfig) { c.Init.Exec[0] = "" }},
		"empty argument":     {"", func(c *state.MachineConfig) { c.Init.Exec[1] = "" }},
		"NUL in argument":    {"config.init.exec[1]", func(c *state.MachineConfig) { c.Init.Exec[1] = "a\x00b" }},
		"no UTF-8":           {"config.init.exec[2]", func(c *state.MachineConfig) { c.Init.Exec[2] = "\xff" }},
		"too many arguments": {"config.init.exec", func(c *state.MachineConfig) { c.Init.Exec = strings.Split(strings.Repeat("a ", 1024), " ") }},
		"too long":           {"config.init.exec", func(c *state.MachineConfig) { c.Init.Exec[1] = strings.Repeat("a", 64<<10) }},

		"variable: digit first": {"config.env", func(c *state.MachineConfig) { c.Env["1A"] = "" }},
		"variable: no name":     {"config.env", func(c *state.MachineConfig) { c.Env[""] = "" }},
		"variable: '='":         {"config.env", func(c *state.MachineConfig) { c.Env["A=B"] = "" }},
		"variable: NUL":         {"config.env.A", func(c *state.MachineConfig) { c.Env["A"] = "\x00" }},
		"variable: new line":    {"", func(c *state.MachineConfig) { c.Env["A"] = "a\nb" }},
		"variables: too long":   {"config.env", func(c *state.MachineConfig) { c.Env["A"] = strings.Repeat("a", 64<<10) }},
		"variables: too many":   {"config.env", func(c *state.MachineConfig) { c.Env = entries(257) }},
		"variables: most":       {"", func(c *state.MachineConfig) { c.Env = entries(256) }},

		"metadata: no key":            {"config.metadata", func(c *state.MachineConfig) { c.Metadata[""] = "x" }},
		"metadata: space in key":      {"config.metadata", func(c *state.MachineConfig) { c.Metadata["a b"] = "x" }},
		"metadata: long key":          {"config.metadata", func(c *state.MachineConfig) { c.Metadata[strings.Repeat("a", 65)] = "x" }},
		"metadata: longest key":       {"", func(c *state.MachineConfig) { c.Metadata[strings.Repeat("a", 64)] = "x" }},
		"metadata: long value":        {"config.metadata.a", func(c *state.MachineConfig) { c.Metadata["a"] = strings.Repeat("x", 1025) }},
		"metadata: longest value":     {"", func(c *state.MachineConfig) { c.Metadata["a"] = strings.Repeat("x", 1024) }},
		"metadata: control":           {"config.metadata.a", func(c *state.MachineConfig) { c.Metadata["a"] = "x\ty" }},
		"metadata: too many":          {"config.metadata", func(c *state.MachineConfig) { c.Metadata = entries(65) }},
		"metadata: dots and capitals": {"", func(c *state.MachineConfig) { c.Metadata["Role.of.This"] = "Primary.v1" }},
		"process group: no label":     {"config.metadata.fly_process_group", func(c *state.MachineConfig) { c.Metadata["fly_process_group"] = "a.b" }},
		"process group: capital":      {"", func(c *state.MachineConfig) { c.Metadata["fly_process_group"] = "Worker_1" }},

		"restart: unknown":     {"config.restart.policy", func(c *state.MachineConfig) { c.Restart.Policy = "sometimes" }},
		"restart: default":     {"", func(c *state.MachineConfig) { c.Restart.Policy = "" }},
		"restart: negative":    {"config.restart.max_retries", func(c *state.MachineConfig) { c.Restart.MaxRetries = -1 }},
		"restart: too often":   {"config.restart.max_retries", func(c *state.MachineConfig) { c.Restart.MaxRetries = 1_000_001 }},
		"stop: unknown signal": {"config.stop_config.signal", func(c *state.MachineConfig) { c.StopConfig.Signal = "SIGNOTHING" }},
		"stop: negative":       {"config.stop_config.timeout", func(c *state.MachineConfig) { c.StopConfig.Timeout = -1 }},
		"stop: too long":       {"config.stop_config.timeout", func(c *state.MachineConfig) { c.StopConfig.Timeout = 24*time.Hour + 1 }},
		"mtu: default":         {"", func(c *state.MachineConfig) { c.MTU = 0 }},
		"mtu: too small":       {"config.mtu", func(c *state.MachineConfig) { c.MTU = 1279 }},
		"mtu: smallest":        {"", func(c *state.MachineConfig) { c.MTU = 1280 }},
		"mtu: largest":         {"", func(c *state.MachineConfig) { c.MTU = 9000 }},
		"mtu: too large":       {"config.mtu", func(c *state.MachineConfig) { c.MTU = 9001 }},
		"workdir: relative":    {"config.workdir", func(c *state.MachineConfig) { c.WorkDir = "srv" }},
		"workdir: dots":        {"config.workdir", func(c *state.MachineConfig) { c.WorkDir = "/srv/../etc" }},
		"workdir: root":        {"", func(c *state.MachineConfig) { c.WorkDir = "/" }},
		"workdir: NUL":         {"config.workdir", func(c *state.MachineConfig) { c.WorkDir = "/a\x00" }},
		"services: none":       {"", func(c *state.MachineConfig) { c.Services = nil }},
		"services: too many":   {"config.services", func(c *state.MachineConfig) { c.Services = many65() }},
		"protocol: none":       {"config.services[0].protocol", func(c *state.MachineConfig) { services(c).Protocol = "" }},
		"protocol: capitals":   {"config.services[0].protocol", func(c *state.MachineConfig) { services(c).Protocol = "TCP" }},
		"internal port: 0":     {"config.services[0].internal_port", func(c *state.MachineConfig) { services(c).InternalPort = 0 }},
		"internal port: last":  {"", func(c *state.MachineConfig) { services(c).InternalPort = 65535 }},
		"ports: none":          {"config.services[0].ports", func(c *state.MachineConfig) { services(c).Ports = nil }},
		"ports: too many":      {"config.services[0].ports", func(c *state.MachineConfig) { services(c).Ports = make([]state.ServicePort, 65) }},
		"port: 0":              {"config.services[0].ports[0].port", func(c *state.MachineConfig) { port(c).Port = 0 }},
		"port: last":           {"", func(c *state.MachineConfig) { port(c).Port = 65535 }},
		"port and range":       {"config.services[0].ports[0]", func(c *state.MachineConfig) { port(c).StartPort = 81 }},
		"port and end":         {"config.services[0].ports[0]", func(c *state.MachineConfig) { port(c).EndPort = 81 }},
		"range: from 0":        {"config.services[0].ports[1].start_port", func(c *state.MachineConfig) { c.Services[0].Ports[1].StartPort = 0 }},
		"range: backwards":     {"config.services[0].ports[1].end_port", func(c *state.MachineConfig) { c.Services[0].Ports[1].EndPort = 7999 }},
		"range: no end":        {"config.services[0].ports[1].end_port", func(c *state.MachineConfig) { c.Services[0].Ports[1].EndPort = 0 }},
		"range: of one":        {"", func(c *state.MachineConfig) { c.Services[0].Ports[1].EndPort = 8000 }},
		"range: to the last":   {"", func(c *state.MachineConfig) { c.Services[0].Ports[1].EndPort = 65535 }},
		"handler":              {"config.services[0].ports[0].handlers", func(c *state.MachineConfig) { port(c).Handlers = []string{"http"} }},

		"overlap: same port":         {"config.services[0].ports[1]", func(c *state.MachineConfig) { c.Services[0].Ports[1] = state.ServicePort{Port: 80} }},
		"overlap: port in range":     {"config.services[0].ports[1]", func(c *state.MachineConfig) { port(c).Port = 8010 }},
		"overlap: port before range": {"", func(c *state.MachineConfig) { port(c).Port = 7999 }},
		"overlap: port after range":  {"", func(c *state.MachineConfig) { port(c).Port = 8011 }},
		"overlap: other service":     {"config.services[1].ports[0]", func(c *state.MachineConfig) { c.Services[1].Protocol, c.Services[1].Ports[0].Port = "tcp", 80 }},
		"overlap: other protocol":    {"", func(c *state.MachineConfig) { c.Services[1].Ports[0].Port = 80 }},
		"internal port: twice":       {"config.services[1].internal_port", func(c *state.MachineConfig) { c.Services[1].Protocol, c.Services[1].InternalPort = "tcp", 8080 }},
		"internal port: of both":     {"", func(c *state.MachineConfig) { c.Services[1].InternalPort = 8080 }},
		"concurrency: requests":      {"config.services[0].concurrency.type", func(c *state.MachineConfig) { services(c).Concurrency.Type = "requests" }},
		"concurrency: connections":   {"", func(c *state.MachineConfig) { services(c).Concurrency.Type = "connections" }},
		"concurrency: soft over hard": {"config.services[0].concurrency.soft_limit", func(c *state.MachineConfig) {
			services(c).Concurrency = state.Concurrency{SoftLimit: 11, HardLimit: 10}
		}},
		"concurrency: equal": {"", func(c *state.MachineConfig) {
			services(c).Concurrency = state.Concurrency{SoftLimit: 10, HardLimit: 10}
		}},
		"concurrency: soft alone":     {"", func(c *state.MachineConfig) { services(c).Concurrency.SoftLimit = 10 }},
		"concurrency: soft too large": {"config.services[0].concurrency.soft_limit", func(c *state.MachineConfig) { services(c).Concurrency.SoftLimit = 1<<18 + 1 }},
		"autostop: off":               {"", func(c *state.MachineConfig) { services(c).Autostop = "off" }},
		"autostop: suspend":           {"", func(c *state.MachineConfig) { services(c).Autostop = "suspend" }},
		"autostop: unknown":           {"config.services[0].autostop", func(c *state.MachineConfig) { services(c).Autostop = "true" }},
		"min machines: negative":      {"config.services[0].min_machines_running", func(c *state.MachineConfig) { services(c).MinMachinesRunning = -1 }},
		"min machines: most":          {"", func(c *state.MachineConfig) { services(c).MinMachinesRunning = 4096 }},
		"min machines: too many":      {"config.services[0].min_machines_running", func(c *state.MachineConfig) { services(c).MinMachinesRunning = 4097 }},
		"concurrency: hard too large": {"config.services[0].concurrency.hard_limit", func(c *state.MachineConfig) { services(c).Concurrency.HardLimit = 1<<18 + 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			c := config()
			row.change(&c)
			check(t, state.ValidateMachineConfig(c), row.field)
		})
	}
}

// check wants an error about field, or none when that is empty.
func check(t *testing.T, err error, field string) {
	t.Helper()
	if field == "" {
		must(t, err)
		return
	}
	refused(t, err, state.Invalid, field)
}

func entries(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("K%d", i)] = ""
	}
	return m
}

func many65() []state.Service {
	var services []state.Service
	for i := range 65 {
		p := uint16(i + 1)
		services = append(services, state.Service{Protocol: "tcp", InternalPort: p, Ports: []state.ServicePort{{Port: p}}})
	}
	return services
}

func TestValidateNames(t *testing.T) {
	longest := strings.Repeat("a", 63)
	for rule, validate := range map[string]struct {
		field string
		check func(string) error
	}{
		"slug":    {"slug", state.ValidateOrgSlug},
		"network": {"network", state.ValidateNetworkName},
		"app":     {"name", state.ValidateAppName},
		"host":    {"host", state.ValidateHostName},
		"machine": {"name", state.ValidateMachineName},
	} {
		for name, good := range map[string]bool{
			"web": true, "a": true, "0": true, "my-app-name-0": true, longest: true, "a--b": true,
			"": false, longest + "a": false, "Web": false, "-web": false, "web-": false, "-": false, "a.b": false,
			"a_b": false, "a/b": false, "a b": false, "wéb": false, "web\n": false, "web\x00": false, "_apps": false,
		} {
			t.Run(fmt.Sprintf("%s %q", rule, name), func(t *testing.T) {
				field := validate.field
				if good {
					field = ""
				}
				check(t, validate.check(name), field)
			})
		}
	}
}

func TestReservedAppNames(t *testing.T) {
	for _, name := range strings.Fields("all flycast global internal kv nearest of process regions top vm vms") {
		t.Run(name, func(t *testing.T) {
			check(t, state.ValidateAppName(name), "name")
			check(t, state.ValidateAppName("my-"+name), "")
			check(t, state.ValidateOrgSlug(name), "")
		})
	}
}

func TestValidateOthers(t *testing.T) {
	for name, row := range map[string]struct {
		err   error
		field string
	}{
		"id":                  {state.ValidateMachineID("148e21dad76789"), ""},
		"id: capitals":        {state.ValidateMachineID("148E21dad76789"), "id"},
		"id: short":           {state.ValidateMachineID("148e21dad7678"), "id"},
		"id: long":            {state.ValidateMachineID("148e21dad767890"), "id"},
		"id: no hexadecimal":  {state.ValidateMachineID("148e21dad7678g"), "id"},
		"region":              {state.ValidateRegion("iad"), ""},
		"region: capitals":    {state.ValidateRegion("IAD"), "region"},
		"region: unknown":     {state.ValidateRegion("zzz"), "region"},
		"region: empty":       {state.ValidateRegion(""), "region"},
		"org name":            {state.ValidateOrgName("Acme & Söhne"), ""},
		"org name: long":      {state.ValidateOrgName(strings.Repeat("ä", 101)), "name"},
		"org name: longest":   {state.ValidateOrgName(strings.Repeat("ä", 100)), ""},
		"org name: no UTF-8":  {state.ValidateOrgName("\xff"), "name"},
		"state":               {state.ValidateMachineState(state.Destroyed), ""},
		"state: unknown":      {state.ValidateMachineState(""), "state"},
		"desired":             {state.ValidateDesired(state.Stopped), ""},
		"desired: transition": {state.ValidateDesired(state.Stopping), "desired"},
	} {
		t.Run(name, func(t *testing.T) { check(t, row.err, row.field) })
	}
}
