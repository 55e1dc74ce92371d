// Package flytoml reads a fly.toml and makes configurations of Machines of it. What
// a file says and what has no meaning here is named in a warning, so that nothing
// is ignored in silence; what a configuration may hold is for the API to judge.
package flytoml

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/shlex"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// File is what a fly.toml asks for.
type File struct {
	App           string
	PrimaryRegion string // of new Machines; empty: the host's
	Groups        []Group
	Strategy      string        // of [deploy], as it is written
	WaitTimeout   time.Duration // of [deploy]; 0: it does not say
	Warnings      []string
}

// Group is a process group and what each of its Machines gets.
type Group struct {
	Name   string
	Config api.MachineConfig
}

// Options are what the command line adds.
type Options struct {
	Command []string          // of the only group of a file without [processes]
	Env     map[string]string // stronger than [env]
}

// defaultGroup is the group of a file without [processes].
const defaultGroup = "app"

// Read reads a fly.toml. The groups are in the order of their names. With an error
// there may be warnings too: a mistyped table is often its cause.
func Read(text []byte, options Options) (File, error) {
	var d document
	meta, err := toml.Decode(string(text), &d)
	if err != nil {
		return File{}, fmt.Errorf("it is no fly.toml: %w", err)
	}
	file := File{
		App: d.App, PrimaryRegion: d.PrimaryRegion,
		Strategy: d.Deploy.Strategy, WaitTimeout: d.Deploy.WaitTimeout.in(time.Second),
		Warnings: warnings(meta.Undecoded()),
	}
	commands, err := d.commands(options.Command)
	if err != nil {
		return File{Warnings: file.Warnings}, err
	}
	names := slices.Sorted(maps.Keys(commands))
	if err := d.checkGroups(names); err != nil {
		return File{Warnings: file.Warnings}, err
	}
	first := names[0]
	if slices.Contains(names, defaultGroup) {
		first = defaultGroup
	}
	for _, name := range names {
		config, warnings := d.config(name, name == first)
		config.Init.Exec = commands[name]
		maps.Copy(config.Env, options.Env)
		file.Groups = append(file.Groups, Group{Name: name, Config: config})
		for _, warning := range warnings {
			if !slices.Contains(file.Warnings, warning) {
				file.Warnings = append(file.Warnings, warning)
			}
		}
	}
	return file, nil
}

// commands is what each group runs.
func (d *document) commands(given []string) (map[string][]string, error) {
	switch {
	case len(d.Processes) == 0 && len(given) == 0:
		return nil, errors.New(`there is no command to run: add a table [processes] with e.g. app = "./server --port 8080", or give it after --`)
	case len(d.Processes) == 0:
		return map[string][]string{defaultGroup: given}, nil
	case len(given) > 0:
		return nil, errors.New("there is a table [processes], and a command after -- as well: expected one of the two")
	}
	commands := map[string][]string{}
	for name, line := range d.Processes {
		words, err := shlex.Split(line)
		if err != nil {
			return nil, fmt.Errorf("processes.%s: %q cannot be split into words: %w", name, line, err)
		}
		if len(words) == 0 {
			return nil, fmt.Errorf("processes.%s is empty: expected the command that the group runs", name)
		}
		commands[name] = words
	}
	return commands, nil
}

// checkGroups refuses what is for a group that there is not.
func (d *document) checkGroups(names []string) error {
	check := func(key string, groups []string) error {
		for _, group := range groups {
			if !slices.Contains(names, group) {
				return fmt.Errorf("%s: there is no process group %q, expected one of [processes]: %s", key, group, strings.Join(names, ", "))
			}
		}
		return nil
	}
	var errs []error
	for _, s := range d.Services {
		errs = append(errs, check("services.processes", s.Processes))
	}
	if d.HTTPService != nil {
		errs = append(errs, check("http_service.processes", d.HTTPService.Processes))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Checks)) {
		errs = append(errs, check("checks."+name+".processes", d.Checks[name].Processes))
	}
	for _, r := range d.Restart {
		errs = append(errs, check("restart.processes", r.Processes))
	}
	return cmp.Or(errs...)
}

// crashRetries is how often a Machine that crashes is started again unless
// [[restart]] says otherwise.
const crashRetries = 10

// config is what the Machines of a group get, but for their command. What names no
// group is for the first one.
func (d *document) config(group string, first bool) (api.MachineConfig, []string) {
	var warnings []string
	of := func(groups []string) bool { return len(groups) == 0 && first || slices.Contains(groups, group) }
	c := api.MachineConfig{
		Env: texts(d.Env), Metadata: texts(d.Metadata),
		Restart:    api.Restart{Policy: "on-failure", MaxRetries: crashRetries},
		StopConfig: api.StopConfig{Signal: d.KillSignal, Timeout: api.DurationValue(d.KillTimeout.in(time.Second))},
	}
	if d.PrimaryRegion != "" && c.Env["PRIMARY_REGION"] == "" {
		c.Env["PRIMARY_REGION"] = d.PrimaryRegion
	}
	for _, r := range d.Restart {
		// Unlike a service, a policy that names no group is for all.
		if len(r.Processes) == 0 || of(r.Processes) {
			c.Restart = api.Restart{Policy: r.Policy, MaxRetries: r.Retries}
			if r.Policy == "never" {
				c.Restart.Policy = "no"
			}
		}
	}
	for name, check := range d.Checks {
		if of(check.Processes) {
			if c.Checks == nil {
				c.Checks = map[string]api.HealthCheck{}
			}
			c.Checks[name] = check.api("")
		}
	}
	if s := d.HTTPService; s != nil && of(s.Processes) {
		converted := s.service("http_service", &warnings)
		converted.Protocol = "tcp"
		converted.Ports = []api.ServicePort{{Port: httpPort}}
		for _, check := range s.Checks {
			converted.Checks = append(converted.Checks, check.api("http"))
		}
		c.Services = append(c.Services, converted)
	}
	for _, s := range d.Services {
		if !of(s.Processes) {
			continue
		}
		if len(s.Ports) == 0 {
			warnings = append(warnings, fmt.Sprintf("services: the one of internal port %d has no ports, so nothing leads to it, and is left out", s.InternalPort))
			continue
		}
		c.Services = append(c.Services, s.api(&warnings))
	}
	return c, append(warnings, slowChecks(c)...)
}

// slowChecks warns of checks whose probes may take longer than there is between two.
func slowChecks(c api.MachineConfig) (warnings []string) {
	warn := func(key string, check api.HealthCheck) {
		interval := cmp.Or(time.Duration(check.Interval), state.DefaultCheckInterval)
		if timeout := time.Duration(check.Timeout); timeout > interval {
			warnings = append(warnings, fmt.Sprintf("%s: a timeout of %v is longer than the interval of %v: while one probe goes on no other begins, so they may be as far apart as the timeout", key, timeout, interval))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Checks)) {
		warn("checks."+name, c.Checks[name])
	}
	for _, service := range c.Services {
		for _, check := range service.Checks {
			warn(fmt.Sprintf("check of internal port %d", service.InternalPort), check)
		}
	}
	return warnings
}

// httpPort is the only port of [http_service] here, since a VIP port speaks no TLS.
const httpPort = 80

func (s service) api(warnings *[]string) api.Service {
	out := s.service("services", warnings)
	out.Protocol = cmp.Or(s.Protocol, "tcp")
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, api.ServicePort{Port: int(p.Port), StartPort: int(p.StartPort), EndPort: int(p.EndPort)})
	}
	for _, check := range s.TCPChecks {
		out.Checks = append(out.Checks, check.api("tcp"))
	}
	for _, check := range s.HTTPChecks {
		out.Checks = append(out.Checks, check.api("http"))
	}
	return out
}

// service is the part that both kinds of service have.
func (t traffic) service(key string, warnings *[]string) api.Service {
	out := api.Service{
		InternalPort: t.InternalPort, Autostart: t.AutoStartMachines,
		Autostop: api.AutostopValue(t.AutoStopMachines), MinMachinesRunning: t.MinMachinesRunning,
	}
	warn := func(format string, args ...any) { *warnings = append(*warnings, key+"."+fmt.Sprintf(format, args...)) }
	if t.AutoStopMachines != "" && t.AutoStopMachines != "off" {
		warn("auto_stop_machines is kept, and so far no Machine is stopped for lack of traffic")
	}
	if t.AutoStartMachines != nil && *t.AutoStartMachines {
		warn("auto_start_machines is kept, and so far no Machine is started by traffic")
	}
	if c := t.Concurrency; c != nil {
		out.Concurrency = &api.Concurrency{Type: c.Type, SoftLimit: c.SoftLimit, HardLimit: c.HardLimit}
		if c.Type == "requests" {
			out.Concurrency.Type = "connections"
			warn("concurrency.type requests has no meaning here: its limits are taken of connections")
		}
	}
	return out
}
