package api

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sixpn/sixpn/state"
)

// configIn is a config as the store keeps it. It refuses only what the store's
// types cannot hold; the store judges the rest.
func configIn(c MachineConfig) (state.MachineConfig, error) {
	out := state.MachineConfig{
		Init: state.Init{Exec: c.Init.Exec}, Env: c.Env, Metadata: c.Metadata,
		Restart:     state.Restart{Policy: c.Restart.Policy, MaxRetries: c.Restart.MaxRetries},
		AutoDestroy: c.AutoDestroy, WorkDir: c.Workdir,
		StopConfig: state.StopConfig{Signal: c.StopConfig.Signal, Timeout: time.Duration(c.StopConfig.Timeout)},
		DNS:        dnsIn(c.DNS), Image: c.Image,
	}
	if c.Guest != (Guest{}) {
		out.Guest = &state.Guest{CPUKind: c.Guest.CPUKind, CPUs: c.Guest.Cpus, MemoryMB: c.Guest.MemoryMb}
	}
	if a := c.Attach; a != nil {
		out.Attach = &state.Attach{Device: a.Device, NetNS: a.Netns, Pid: a.Pid, MAC: a.Mac}
	}
	if len(c.Init.Exec) == 0 {
		out.Init.Exec = slices.Concat(c.Init.Entrypoint, c.Init.Cmd)
	}
	if c.MTU < 0 || c.MTU > math.MaxUint16 {
		return out, invalid("config.mtu", "config.mtu is %d, expected 1280 to 9000", c.MTU)
	}
	out.MTU = uint16(c.MTU)
	for i, service := range c.Services {
		converted, err := serviceIn(fmt.Sprintf("config.services[%d]", i), service)
		if err != nil {
			return out, err
		}
		out.Services = append(out.Services, converted)
	}
	if len(c.Checks) > 0 {
		out.Checks = map[string]state.Check{}
	}
	// In the order of the names, so that of two mistakes the same one is reported.
	for _, name := range slices.Sorted(maps.Keys(c.Checks)) {
		converted, err := checkIn("config.checks."+name, c.Checks[name])
		if err != nil {
			return out, err
		}
		out.Checks[name] = converted
	}
	return out, nil
}

func dnsIn(d DNSConfig) state.DNS {
	out := state.DNS{
		SkipRegistration: d.SkipRegistration, Nameservers: d.Nameservers, Searches: d.Searches, Hostname: d.Hostname,
	}
	for _, o := range d.Options {
		out.Options = append(out.Options, state.DNSOption(o))
	}
	return out
}

func checkIn(path string, c HealthCheck) (state.Check, error) {
	out := state.Check{
		Type: c.Type, Interval: time.Duration(c.Interval), Timeout: time.Duration(c.Timeout), GracePeriod: time.Duration(c.GracePeriod),
		Method: strings.ToUpper(c.Method), Path: c.Path, Protocol: c.Protocol, TLSSkipVerify: c.TLSSkipVerify, TLSServerName: c.TLSServerName,
	}
	for _, h := range c.Headers {
		out.Headers = append(out.Headers, state.Header(h))
	}
	var err error
	out.Port, err = portIn(path+".port", c.Port)
	return out, err
}

func serviceIn(path string, s Service) (state.Service, error) {
	out := state.Service{
		Protocol: s.Protocol, Autostop: string(s.Autostop), Autostart: s.Autostart, MinMachinesRunning: s.MinMachinesRunning,
	}
	var err error
	for i, c := range s.Checks {
		converted, err := checkIn(fmt.Sprintf("%s.checks[%d]", path, i), c)
		if err != nil {
			return out, err
		}
		out.Checks = append(out.Checks, converted)
	}
	if out.InternalPort, err = portIn(path+".internal_port", s.InternalPort); err != nil {
		return out, err
	}
	for i, p := range s.Ports {
		at := fmt.Sprintf("%s.ports[%d]", path, i)
		converted := state.ServicePort{Handlers: p.Handlers}
		if converted.Port, err = portIn(at+".port", p.Port); err != nil {
			return out, err
		}
		if converted.StartPort, err = portIn(at+".start_port", p.StartPort); err != nil {
			return out, err
		}
		if converted.EndPort, err = portIn(at+".end_port", p.EndPort); err != nil {
			return out, err
		}
		out.Ports = append(out.Ports, converted)
	}
	if c := s.Concurrency; c != nil {
		out.Concurrency.Type = c.Type
		if out.Concurrency.SoftLimit, err = limitIn(path+".concurrency.soft_limit", c.SoftLimit); err != nil {
			return out, err
		}
		if out.Concurrency.HardLimit, err = limitIn(path+".concurrency.hard_limit", c.HardLimit); err != nil {
			return out, err
		}
	}
	return out, nil
}

// portIn lets 0 pass, which is an absent port; the store knows where one must be.
func portIn(path string, n int) (uint16, error) {
	if n < 0 || n > math.MaxUint16 {
		return 0, invalid(path, "%s is %d, expected 1 to 65535", path, n)
	}
	return uint16(n), nil
}

func limitIn(path string, n int) (uint32, error) {
	if n < 0 || n > math.MaxUint32 {
		return 0, invalid(path, "%s is %d, expected 0 (no limit) to %d", path, n, uint32(math.MaxUint32))
	}
	return uint32(n), nil
}
