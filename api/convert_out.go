package api

import "github.com/sixpn/sixpn/state"

// configOut is a kept config as clients see it.
func configOut(c state.MachineConfig) MachineConfig {
	out := MachineConfig{
		Init: Init{Exec: c.Init.Exec}, Env: c.Env, Metadata: c.Metadata,
		Restart:     Restart{Policy: c.Restart.Policy, MaxRetries: c.Restart.MaxRetries},
		AutoDestroy: c.AutoDestroy, Workdir: c.WorkDir, MTU: int(c.MTU), Image: c.Image, DNS: dnsOut(c.DNS),
		StopConfig: StopConfig{Signal: c.StopConfig.Signal, Timeout: DurationValue(c.StopConfig.Timeout)},
	}
	if g := c.Guest; g != nil {
		out.Guest = Guest{CPUKind: g.CPUKind, Cpus: g.CPUs, MemoryMb: g.MemoryMB}
	}
	if a := c.Attach; a != nil {
		out.Attach = &Attach{Device: a.Device, Netns: a.NetNS, Pid: a.Pid, Mac: a.MAC}
	}
	for _, s := range c.Services {
		out.Services = append(out.Services, serviceOut(s))
	}
	if len(c.Checks) > 0 {
		out.Checks = map[string]HealthCheck{}
	}
	for name, check := range c.Checks {
		out.Checks[name] = checkOut(check)
	}
	return out
}

func dnsOut(d state.DNS) DNSConfig {
	out := DNSConfig{
		SkipRegistration: d.SkipRegistration, Nameservers: d.Nameservers, Searches: d.Searches, Hostname: d.Hostname,
	}
	for _, o := range d.Options {
		out.Options = append(out.Options, DNSOption(o))
	}
	return out
}

func serviceOut(s state.Service) Service {
	out := Service{
		Protocol: s.Protocol, InternalPort: int(s.InternalPort),
		Autostop: Autostop(s.Autostop), Autostart: s.Autostart, MinMachinesRunning: s.MinMachinesRunning,
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, ServicePort{
			Port: int(p.Port), StartPort: int(p.StartPort), EndPort: int(p.EndPort), Handlers: p.Handlers,
		})
	}
	if s.Concurrency != (state.Concurrency{}) {
		out.Concurrency = &Concurrency{
			Type: s.Concurrency.Type, SoftLimit: int(s.Concurrency.SoftLimit), HardLimit: int(s.Concurrency.HardLimit),
		}
	}
	for _, c := range s.Checks {
		out.Checks = append(out.Checks, checkOut(c))
	}
	return out
}

func checkOut(c state.Check) HealthCheck {
	out := HealthCheck{
		Type: c.Type, Port: int(c.Port), Method: c.Method, Path: c.Path, Protocol: c.Protocol,
		Interval: DurationValue(c.Interval), Timeout: DurationValue(c.Timeout), GracePeriod: DurationValue(c.GracePeriod),
		TLSSkipVerify: c.TLSSkipVerify, TLSServerName: c.TLSServerName,
	}
	for _, h := range c.Headers {
		out.Headers = append(out.Headers, CheckHeader(h))
	}
	return out
}
