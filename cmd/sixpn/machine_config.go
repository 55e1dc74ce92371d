package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/google/shlex"
	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// configFlags is what commands are told of a Machine's configuration.
type configFlags struct {
	config, group, restart, workdir, entrypoint, signal string
	ports, checks, env, metadata, nameservers, searches []string
	retries, mtu, timeout                               int
	skipDNS                                             bool
}

// flags are those of every Machine.
func (f *configFlags) flags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.config, "machine-config", "", "configuration as in the Machines API: a JSON file, - for what this command reads, or JSON; other flags override it")
	flags.StringVar(&f.group, "process-group", "", "process group (default app)")
	flags.StringArrayVarP(&f.metadata, "metadata", "m", nil, "metadata KEY=VALUE")
	flags.StringArrayVarP(&f.ports, "port", "p", nil, "service, e.g. 80:8080/tcp or 8000-8010:8000/udp")
	flags.StringArrayVar(&f.checks, "check", nil, "health check, e.g. tcp:5432 or http:8080/healthz,interval=5s,grace=10s")
	flags.BoolVar(&f.skipDNS, "skip-dns-registration", false, "no name under .internal leads to it")
	flags.IntVar(&f.mtu, "mtu", 0, "MTU of its device (default the host's)")
}

// processFlags are those of a Machine that runs a command.
func (f *configFlags) processFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable KEY=VALUE")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "what goes before CMD, split into words")
	flags.StringVar(&f.restart, "restart", "", "when it has ended by itself: no (the default), on-failure or always")
	flags.IntVar(&f.retries, "max-retries", 0, "how often it is started again, 0 for no limit")
	flags.StringVar(&f.workdir, "workdir", "", "directory CMD starts in (default /)")
	flags.StringVar(&f.signal, "kill-signal", "", "signal that stops it (default SIGTERM)")
	flags.IntVar(&f.timeout, "kill-timeout", 0, "seconds until SIGKILL when it is stopped (default the host's)")
	flags.StringArrayVar(&f.nameservers, "dns-nameserver", nil, "name server of its /etc/resolv.conf (default fdaa::3)")
	flags.StringArrayVar(&f.searches, "dns-search", nil, "search domain of its /etc/resolv.conf")
}

// apply changes a configuration as the flags say that were given.
func (f *configFlags) apply(c *cli, command *cobra.Command, args []string, config *api.MachineConfig) error {
	given := command.Flags().Changed
	if given("machine-config") {
		*config = api.MachineConfig{}
		if err := c.readConfig(f.config, config); err != nil {
			return err
		}
	}
	for _, step := range []func(*api.MachineConfig) error{f.applyMaps, f.applyServices} {
		if err := step(config); err != nil {
			return err
		}
	}
	if given("entrypoint") {
		entrypoint, err := shlex.Split(f.entrypoint)
		if err != nil {
			return usagef("--entrypoint %q cannot be split into words: %v", f.entrypoint, err)
		}
		config.Init = api.Init{Entrypoint: entrypoint, Cmd: words(config.Init)}
	}
	switch {
	case len(args) > 0 && len(config.Init.Entrypoint) > 0:
		config.Init = api.Init{Entrypoint: config.Init.Entrypoint, Cmd: args}
	case len(args) > 0:
		config.Init = api.Init{Exec: args}
	}
	if f.timeout < 0 {
		return usagef("--kill-timeout is %d, expected 0 (the host's) or seconds", f.timeout)
	}
	for flag, set := range map[string]func(){
		"restart":               func() { config.Restart.Policy = f.restart },
		"max-retries":           func() { config.Restart.MaxRetries = f.retries },
		"workdir":               func() { config.Workdir = f.workdir },
		"mtu":                   func() { config.MTU = f.mtu },
		"kill-signal":           func() { config.StopConfig.Signal = f.signal },
		"kill-timeout":          func() { config.StopConfig.Timeout = api.DurationValue(time.Duration(f.timeout) * time.Second) },
		"skip-dns-registration": func() { config.DNS.SkipRegistration = f.skipDNS },
		"dns-nameserver":        func() { config.DNS.Nameservers = f.nameservers },
		"dns-search":            func() { config.DNS.Searches = f.searches },
	} {
		if given(flag) {
			set()
		}
	}
	return nil
}

// applyMaps adds to the environment and the metadata.
func (f *configFlags) applyMaps(config *api.MachineConfig) error {
	metadata := f.metadata
	if f.group != "" {
		metadata = append([]string{state.ProcessGroupKey + "=" + f.group}, metadata...)
	}
	for _, add := range []struct {
		flag  string
		pairs []string
		to    *api.StringMap
	}{{"--env", f.env, &config.Env}, {"--metadata", metadata, &config.Metadata}} {
		pairs, err := parsePairs(add.flag, add.pairs)
		if err != nil {
			return err
		}
		if len(pairs) == 0 {
			continue
		}
		merged := maps.Clone(*add.to)
		if merged == nil {
			merged = api.StringMap{}
		}
		maps.Copy(merged, pairs)
		*add.to = merged
	}
	return nil
}

// applyServices replaces services and checks: two lists cannot be told apart by
// what they are about.
func (f *configFlags) applyServices(config *api.MachineConfig) error {
	if len(f.ports) > 0 {
		services, err := parsePorts(f.ports)
		if err != nil {
			return err
		}
		config.Services = services
	}
	if len(f.checks) > 0 {
		checks, err := parseChecks(f.checks)
		if err != nil {
			return err
		}
		config.Checks = checks
	}
	return nil
}

// readConfig reads --machine-config. What it does not know is an error, for a
// misspelt member would else be ignored in silence.
func (c *cli) readConfig(source string, config *api.MachineConfig) error {
	content := []byte(source)
	if !strings.HasPrefix(strings.TrimSpace(source), "{") {
		var err error
		if source == "-" {
			content, err = io.ReadAll(c.in)
		} else {
			content, err = os.ReadFile(source)
		}
		if err != nil {
			return fmt.Errorf("read --machine-config: %w", err)
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(config); err != nil {
		return usagef("--machine-config is not a Machine's configuration in JSON: %v", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return usagef("--machine-config has something after the configuration, expected one JSON object")
	}
	return nil
}

func parsePairs(flag string, pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("%s %q is malformed, expected KEY=VALUE", flag, pair)
		}
		out[key] = value
	}
	return out, nil
}
