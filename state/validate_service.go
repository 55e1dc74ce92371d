package state

import (
	"fmt"
	"slices"
)

// ValidateServices checks the services of one Machine, also against each other: a
// port of a VIP must lead to one port of a Machine.
func ValidateServices(services []Service) error {
	if len(services) > MaxServices {
		return refuse(Invalid, "config.services", "%d services are too many: expected at most %d", len(services), MaxServices)
	}
	type internal struct {
		protocol string
		port     uint16
	}
	internals := map[internal]int{}
	var ranges []portRange
	for i, s := range services {
		field := fmt.Sprintf("config.services[%d]", i)
		if err := validateService(field, s); err != nil {
			return err
		}
		at := internal{s.Protocol, s.InternalPort}
		if j, taken := internals[at]; taken {
			return refuse(Invalid, field+".internal_port", "%s port %d is already that of config.services[%d]: put the ports of both into one service",
				s.Protocol, s.InternalPort, j)
		}
		internals[at] = i
		for j, p := range s.Ports {
			r := portRange{field: fmt.Sprintf("%s.ports[%d]", field, j), protocol: s.Protocol}
			r.first, r.last = p.Range()
			for _, other := range ranges {
				if r.overlaps(other) {
					return refuse(Invalid, r.field, "%s port %s overlaps %s of %s: each port of an address leads to one service; choose another",
						r.protocol, r, other, other.field)
				}
			}
			ranges = append(ranges, r)
		}
	}
	return nil
}

// portRange is what one ServicePort covers; first and last are included.
type portRange struct {
	field       string
	protocol    string
	first, last uint16
}

func (r portRange) overlaps(other portRange) bool {
	return r.protocol == other.protocol && r.first <= other.last && other.first <= r.last
}

func (r portRange) String() string {
	if r.first == r.last {
		return fmt.Sprint(r.first)
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}

func validateService(field string, s Service) error {
	if s.Protocol != "tcp" && s.Protocol != "udp" {
		return refuse(Invalid, field+".protocol", "%.20q is not a protocol: expected %q or %q", s.Protocol, "tcp", "udp")
	}
	if s.InternalPort == 0 {
		return refuse(Invalid, field+".internal_port", "0 is not a port: expected 1 to 65535")
	}
	if len(s.Ports) == 0 {
		return refuse(Invalid, field+".ports", "the service has no port, so nothing leads to it: give at least one")
	}
	if len(s.Ports) > MaxServicePorts {
		return refuse(Invalid, field+".ports", "%d ports and ranges are too many: expected at most %d; join neighbours into ranges", len(s.Ports), MaxServicePorts)
	}
	for i, p := range s.Ports {
		if err := validateServicePort(fmt.Sprintf("%s.ports[%d]", field, i), p); err != nil {
			return err
		}
	}
	if !slices.Contains(autostops, s.Autostop) {
		return refuse(Invalid, field+".autostop", "%.20q is not what can become of an idle Machine: expected one of %q", s.Autostop, autostops[1:])
	}
	if n := s.MinMachinesRunning; n < 0 || n > MaxHostMachines {
		return refuse(Invalid, field+".min_machines_running", "%d is out of range: expected 0 to %d", n, MaxHostMachines)
	}
	return validateConcurrency(field+".concurrency", s.Concurrency)
}

var autostops = []string{"", "off", "stop", "suspend"}

func validateServicePort(field string, p ServicePort) error {
	switch {
	case p.Port != 0 && (p.StartPort != 0 || p.EndPort != 0):
		return refuse(Invalid, field, "both a port (%d) and a range (%d-%d) are given: expected one of the two", p.Port, p.StartPort, p.EndPort)
	case p.Port == 0 && p.StartPort == 0 && p.EndPort == 0:
		return refuse(Invalid, field+".port", "0 is not a port: expected 1 to 65535")
	case p.Port == 0 && p.StartPort == 0:
		return refuse(Invalid, field+".start_port", "0 is not a port: expected 1 to 65535")
	case p.Port == 0 && p.EndPort < p.StartPort:
		return refuse(Invalid, field+".end_port", "the range %d-%d ends before it begins: expected an end of at least %d", p.StartPort, p.EndPort, p.StartPort)
	case len(p.Handlers) > 0:
		// A port with a handler would be taken for one without: refuse rather than
		// serve something else than was asked for.
		return refuse(Invalid, field+".handlers", "handlers %q cannot be served: leave them out; the port then carries plain TCP or UDP", p.Handlers)
	}
	return nil
}

func validateConcurrency(field string, c Concurrency) error {
	if c.Type != "" && c.Type != "connections" {
		return refuse(Invalid, field+".type", "%.20q cannot be counted: expected %q", c.Type, "connections")
	}
	if c.SoftLimit > MaxConcurrentFlows {
		return refuse(Invalid, field+".soft_limit", "%d is out of range: expected 0 (none) to %d", c.SoftLimit, MaxConcurrentFlows)
	}
	if c.HardLimit > MaxConcurrentFlows {
		return refuse(Invalid, field+".hard_limit", "%d is out of range: expected 0 (none) to %d", c.HardLimit, MaxConcurrentFlows)
	}
	if c.HardLimit != 0 && c.SoftLimit > c.HardLimit {
		return refuse(Invalid, field+".soft_limit", "%d is above the hard limit, %d: expected at most that", c.SoftLimit, c.HardLimit)
	}
	return nil
}
