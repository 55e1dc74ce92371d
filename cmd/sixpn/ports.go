package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sixpn/sixpn/api"
)

// parsePorts makes services of ports as people write them,
//
//	EXTERNAL[:INTERNAL][/PROTOCOL[:HANDLER...]]
//
// where EXTERNAL is a port or FIRST-LAST. INTERNAL is EXTERNAL if left out,
// PROTOCOL tcp. Several that lead to one internal port are one service.
func parsePorts(specs []string) ([]api.Service, error) {
	var services []api.Service
	for _, spec := range specs {
		service, err := parsePort(spec)
		if err != nil {
			return nil, err
		}
		same := slices.IndexFunc(services, func(s api.Service) bool {
			return s.Protocol == service.Protocol && s.InternalPort == service.InternalPort
		})
		if same < 0 {
			services = append(services, service)
		} else {
			services[same].Ports = append(services[same].Ports, service.Ports...)
		}
	}
	return services, nil
}

func parsePort(spec string) (api.Service, error) {
	ports, rest, _ := strings.Cut(spec, "/")
	external, internal, both := strings.Cut(ports, ":")
	protocol, handlers, _ := strings.Cut(rest, ":")
	if protocol == "" {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" {
		return api.Service{}, usagef("port %q: the protocol is %q, expected tcp or udp", spec, protocol)
	}
	port := api.ServicePort{}
	if handlers != "" {
		port.Handlers = strings.Split(handlers, ":")
	}
	first, last, isRange := strings.Cut(external, "-")
	begin, err := portNumber("port", spec, first)
	if err != nil {
		return api.Service{}, err
	}
	if isRange {
		end, err := portNumber("port", spec, last)
		switch {
		case err != nil:
			return api.Service{}, err
		case end < begin:
			return api.Service{}, usagef("port %q: the range ends before it begins", spec)
		case !both:
			return api.Service{}, usagef("port %q: a range needs the one port that the command listens on, e.g. %s:%s", spec, external, first)
		}
		port.StartPort, port.EndPort = begin, end
	} else {
		port.Port = begin
	}
	target := begin
	if both {
		if target, err = portNumber("port", spec, internal); err != nil {
			return api.Service{}, err
		}
	}
	return api.Service{Protocol: protocol, InternalPort: target, Ports: []api.ServicePort{port}}, nil
}

func portNumber(what, spec, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, usagef("%s %q: %q is no port, expected 1 to 65535", what, spec, text)
	}
	return n, nil
}
