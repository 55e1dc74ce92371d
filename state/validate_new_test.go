package state_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/state"
)

// TestValidateDNS changes one thing a row, as the tables below do.
func TestValidateDNS(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for name, row := range map[string]struct {
		field  string
		change func(*state.DNS)
	}{
		"as it is":                  {"", func(*state.DNS) {}},
		"no registration":           {"", func(d *state.DNS) { d.SkipRegistration = true }},
		"nameserver: IPv4":          {"", func(d *state.DNS) { d.Nameservers[0] = "9.9.9.9" }},
		"nameserver: name":          {"nameservers[0]", func(d *state.DNS) { d.Nameservers[0] = "dns.example" }},
		"nameserver: empty":         {"nameservers[0]", func(d *state.DNS) { d.Nameservers[0] = "" }},
		"nameserver: port":          {"nameservers[0]", func(d *state.DNS) { d.Nameservers[0] = "[fdaa::3]:53" }},
		"nameserver: zone":          {"nameservers[0]", func(d *state.DNS) { d.Nameservers[0] = "fe80::1%eth0" }},
		"nameserver: none":          {"nameservers[0]", func(d *state.DNS) { d.Nameservers[0] = "::" }},
		"nameserver: group":         {"nameservers[0]", func(d *state.DNS) { d.Nameservers[0] = "ff02::fb" }},
		"nameservers: most":         {"", func(d *state.DNS) { d.Nameservers = repeat("fdaa::3", 8) }},
		"nameservers: too many":     {"nameservers", func(d *state.DNS) { d.Nameservers = repeat("fdaa::3", 9) }},
		"search: dot at the end":    {"", func(d *state.DNS) { d.Searches[0] = "internal." }},
		"search: underscore":        {"", func(d *state.DNS) { d.Searches[0] = "_tcp.web.internal" }},
		"search: capitals":          {"", func(d *state.DNS) { d.Searches[0] = "Web.Internal" }},
		"search: empty":             {"searches[0]", func(d *state.DNS) { d.Searches[0] = "" }},
		"search: two dots":          {"searches[0]", func(d *state.DNS) { d.Searches[0] = "web..internal" }},
		"search: space":             {"searches[0]", func(d *state.DNS) { d.Searches[0] = "web internal" }},
		"search: new line":          {"searches[0]", func(d *state.DNS) { d.Searches[0] = "web\nnameserver" }},
		"search: hyphen":            {"searches[0]", func(d *state.DNS) { d.Searches[0] = "-web.internal" }},
		"search: longest label":     {"", func(d *state.DNS) { d.Searches[0] = long }},
		"search: long label":        {"searches[0]", func(d *state.DNS) { d.Searches[0] = long + "a" }},
		"search: longest":           {"", func(d *state.DNS) { d.Searches[0] = strings.Repeat(long+".", 3) + long[:61] }},
		"search: long":              {"searches[0]", func(d *state.DNS) { d.Searches[0] = strings.Repeat(long+".", 3) + long[:62] }},
		"searches: most":            {"", func(d *state.DNS) { d.Searches = repeat("internal", 16) }},
		"searches: too many":        {"searches", func(d *state.DNS) { d.Searches = repeat("internal", 17) }},
		"option: without a value":   {"", func(d *state.DNS) { d.Options[0] = state.DNSOption{Name: "edns0"} }},
		"option: no name":           {"options[0].name", func(d *state.DNS) { d.Options[0].Name = "" }},
		"option: two in one":        {"options[0].name", func(d *state.DNS) { d.Options[0].Name = "edns0 ndots" }},
		"option: new line in value": {"options[0].value", func(d *state.DNS) { d.Options[0].Value = "2\nnameserver 1" }},
		"options: most":             {"", func(d *state.DNS) { d.Options = repeat(d.Options[0], 16) }},
		"options: too many":         {"options", func(d *state.DNS) { d.Options = repeat(d.Options[0], 17) }},
		"host name: capitals":       {"", func(d *state.DNS) { d.Hostname = "Web-1" }},
		"host name: default":        {"", func(d *state.DNS) { d.Hostname = "" }},
		"host name: dots":           {"hostname", func(d *state.DNS) { d.Hostname = "web.internal" }},
		"host name: hyphen":         {"hostname", func(d *state.DNS) { d.Hostname = "web-" }},
		"host name: longest":        {"", func(d *state.DNS) { d.Hostname = long }},
		"host name: long":           {"hostname", func(d *state.DNS) { d.Hostname = long + "a" }},
	} {
		t.Run(name, func(t *testing.T) {
			c := config()
			c.DNS = state.DNS{
				Nameservers: []string{"fdaa::3"}, Searches: []string{"web.internal"}, Hostname: "web-1",
				Options: []state.DNSOption{{Name: "ndots", Value: "2"}},
			}
			row.change(&c.DNS)
			field := row.field
			if field != "" {
				field = "config.dns." + field
			}
			check(t, state.ValidateMachineConfig(c), field)
		})
	}
}

func TestValidateAttach(t *testing.T) {
	t.Parallel()
	device := func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: "tap0"} }
	for name, row := range map[string]struct {
		field  string
		change func(*state.MachineConfig)
	}{
		"namespace":              {"", func(*state.MachineConfig) {}},
		"device":                 {"", device},
		"process":                {"", func(c *state.MachineConfig) { *c.Attach = state.Attach{Pid: 1 << 22} }},
		"nothing":                {"config.attach", func(c *state.MachineConfig) { *c.Attach = state.Attach{} }},
		"a MAC alone":            {"config.attach", func(c *state.MachineConfig) { *c.Attach = state.Attach{MAC: "02:00:00:00:00:01"} }},
		"two":                    {"config.attach", func(c *state.MachineConfig) { c.Attach.Pid = 2 }},
		"three":                  {"config.attach", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: "a", NetNS: "/b", Pid: 1} }},
		"device: longest":        {"", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: strings.Repeat("a", 15)} }},
		"device: long":           {"config.attach.device", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: strings.Repeat("a", 16)} }},
		"device: path":           {"config.attach.device", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: "a/b"} }},
		"device: dots":           {"config.attach.device", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: ".."} }},
		"device: space":          {"config.attach.device", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: "a b"} }},
		"device: alias":          {"config.attach.device", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: "eth0:1"} }},
		"device: loopback":       {"config.attach.device", func(c *state.MachineConfig) { *c.Attach = state.Attach{Device: "lo"} }},
		"namespace: relative":    {"config.attach.netns", func(c *state.MachineConfig) { c.Attach.NetNS = "blue" }},
		"namespace: dots":        {"config.attach.netns", func(c *state.MachineConfig) { c.Attach.NetNS = "/run/../blue" }},
		"namespace: NUL":         {"config.attach.netns", func(c *state.MachineConfig) { c.Attach.NetNS = "/a\x00" }},
		"process: negative":      {"config.attach.pid", func(c *state.MachineConfig) { *c.Attach = state.Attach{Pid: -1} }},
		"process: too large":     {"config.attach.pid", func(c *state.MachineConfig) { *c.Attach = state.Attach{Pid: 1<<22 + 1} }},
		"MAC":                    {"", func(c *state.MachineConfig) { device(c); c.Attach.MAC = "52:54:00:AB:cd:ef" }},
		"MAC: of a namespace":    {"config.attach.mac", func(c *state.MachineConfig) { c.Attach.MAC = "02:00:00:00:00:01" }},
		"MAC: group":             {"config.attach.mac", func(c *state.MachineConfig) { device(c); c.Attach.MAC = "03:00:00:00:00:01" }},
		"MAC: zero":              {"config.attach.mac", func(c *state.MachineConfig) { device(c); c.Attach.MAC = "00:00:00:00:00:00" }},
		"MAC: eight bytes":       {"config.attach.mac", func(c *state.MachineConfig) { device(c); c.Attach.MAC = "02:00:00:00:00:00:00:01" }},
		"MAC: malformed":         {"config.attach.mac", func(c *state.MachineConfig) { device(c); c.Attach.MAC = "02:00" }},
		"services":               {"", func(c *state.MachineConfig) { c.Services = config().Services }},
		"metadata":               {"", func(c *state.MachineConfig) { c.Metadata = config().Metadata }},
		"mtu":                    {"", func(c *state.MachineConfig) { c.MTU = 1280 }},
		"no registration":        {"", func(c *state.MachineConfig) { c.DNS.SkipRegistration = true }},
		"no restart":             {"", func(c *state.MachineConfig) { c.Restart.Policy = "no" }},
		"command":                {"config.init.exec", func(c *state.MachineConfig) { c.Init.Exec = []string{"true"} }},
		"variables":              {"config.env", func(c *state.MachineConfig) { c.Env = config().Env }},
		"working directory":      {"config.workdir", func(c *state.MachineConfig) { c.WorkDir = "/" }},
		"restart":                {"config.restart.policy", func(c *state.MachineConfig) { c.Restart.Policy = "always" }},
		"retries":                {"config.restart.max_retries", func(c *state.MachineConfig) { c.Restart.MaxRetries = 1 }},
		"stop":                   {"config.stop_config", func(c *state.MachineConfig) { c.StopConfig.Signal = "SIGINT" }},
		"resolvers":              {"config.dns.nameservers", func(c *state.MachineConfig) { c.DNS.Nameservers = []string{"fdaa::3"} }},
		"search list":            {"config.dns.searches", func(c *state.MachineConfig) { c.DNS.Searches = []string{"internal"} }},
		"options of resolv.conf": {"config.dns.options", func(c *state.MachineConfig) { c.DNS.Options = []state.DNSOption{{Name: "edns0"}} }},
		"host name":              {"config.dns.hostname", func(c *state.MachineConfig) { c.DNS.Hostname = "web" }},
	} {
		t.Run(name, func(t *testing.T) {
			c := state.MachineConfig{Attach: &state.Attach{NetNS: "/run/netns/blue"}}
			row.change(&c)
			check(t, state.ValidateMachineConfig(c), row.field)
		})
	}
}

func TestValidateKept(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		field  string
		change func(*state.MachineConfig)
	}{
		"as it is":          {"", func(*state.MachineConfig) {}},
		"no guest":          {"", func(c *state.MachineConfig) { c.Guest = nil }},
		"image: longest":    {"", func(c *state.MachineConfig) { c.Image = strings.Repeat("a", 512) }},
		"image: long":       {"config.image", func(c *state.MachineConfig) { c.Image = strings.Repeat("a", 513) }},
		"image: space":      {"config.image", func(c *state.MachineConfig) { c.Image = "a b" }},
		"image: no UTF-8":   {"config.image", func(c *state.MachineConfig) { c.Image = "\xff" }},
		"cpu kind: text":    {"config.guest.cpu_kind", func(c *state.MachineConfig) { c.Guest.CPUKind = "a kind" }},
		"cpus: negative":    {"config.guest.cpus", func(c *state.MachineConfig) { c.Guest.CPUs = -1 }},
		"cpus: too many":    {"config.guest.cpus", func(c *state.MachineConfig) { c.Guest.CPUs = 1025 }},
		"memory: negative":  {"config.guest.memory_mb", func(c *state.MachineConfig) { c.Guest.MemoryMB = -1 }},
		"memory: most":      {"", func(c *state.MachineConfig) { c.Guest.MemoryMB = 1 << 24 }},
		"memory: too large": {"config.guest.memory_mb", func(c *state.MachineConfig) { c.Guest.MemoryMB = 1<<24 + 1 }},
		// Each argument is a control, which takes six bytes as JSON.
		"all together": {"config", func(c *state.MachineConfig) {
			c.Init.Exec[1] = strings.Repeat("\x01", 60<<10)
			c.Env["A"] = strings.Repeat("\x01", 60<<10)
			for i := range 63 {
				c.Metadata[fmt.Sprint(i)] = strings.Repeat("<", 1024)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := config()
			c.Image, c.Guest = "registry.example/web:1", &state.Guest{CPUKind: "shared", CPUs: 1, MemoryMB: 256}
			row.change(&c)
			check(t, state.ValidateMachineConfig(c), row.field)
		})
	}
}

func repeat[T any](v T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = v
	}
	return all
}
