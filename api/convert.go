package api

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sixpn/sixpn/state"
)

// configIn is a config as the store keeps it. It refuses only what the store's
// types cannot hold; the store judges the rest. Members that are accepted and
// ignored are dropped here.
func configIn(c MachineConfig) (state.MachineConfig, error) {
	out := state.MachineConfig{
		Init: state.Init{Exec: c.Init.Exec}, Env: c.Env, Metadata: c.Metadata,
		Restart:     state.Restart{Policy: c.Restart.Policy, MaxRetries: c.Restart.MaxRetries},
		AutoDestroy: c.AutoDestroy, WorkDir: c.Workdir,
		StopConfig: state.StopConfig{Signal: c.StopConfig.Signal, Timeout: time.Duration(c.StopConfig.Timeout)},
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
	return out, nil
}

func serviceIn(path string, s Service) (state.Service, error) {
	out := state.Service{Protocol: s.Protocol}
	var err error
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

// configOut is a kept config as clients see it.
func configOut(c state.MachineConfig) MachineConfig {
	out := MachineConfig{
		Init: Init{Exec: c.Init.Exec}, Env: c.Env, Metadata: c.Metadata,
		Restart:     Restart{Policy: c.Restart.Policy, MaxRetries: c.Restart.MaxRetries},
		AutoDestroy: c.AutoDestroy, Workdir: c.WorkDir, MTU: int(c.MTU),
		StopConfig: StopConfig{Signal: c.StopConfig.Signal, Timeout: DurationValue(c.StopConfig.Timeout)},
	}
	for _, s := range c.Services {
		service := Service{Protocol: s.Protocol, InternalPort: int(s.InternalPort)}
		for _, p := range s.Ports {
			service.Ports = append(service.Ports, ServicePort{
				Port: int(p.Port), StartPort: int(p.StartPort), EndPort: int(p.EndPort), Handlers: p.Handlers,
			})
		}
		if s.Concurrency != (state.Concurrency{}) {
			service.Concurrency = &Concurrency{
				Type: s.Concurrency.Type, SoftLimit: int(s.Concurrency.SoftLimit), HardLimit: int(s.Concurrency.HardLimit),
			}
		}
		out.Services = append(out.Services, service)
	}
	return out
}
