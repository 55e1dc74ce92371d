package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Healthy says whether a Machine may take new flows of a service of its: none of the
// service's checks, nor of those of the Machine as a whole, is critical. A check that
// has said nothing yet keeps nobody away.
func (m Machine) Healthy(service int) bool {
	return !slices.ContainsFunc(m.Checks, func(c CheckStatus) bool {
		return c.Status == CheckCritical && (c.Service == service || c.Service < 0)
	})
}

// NamedCheck is a health check of a Machine with everything filled in that its
// configuration leaves out.
type NamedCheck struct {
	Name    string // as in the Machine's CheckStatus
	Service int    // index in Config.Services, -1 for a check of Config.Checks
	Check
}

// HealthChecks is all health checks of a Machine: those of its services in their
// order, then those of the Machine as a whole by name.
func (c MachineConfig) HealthChecks() []NamedCheck {
	var all []NamedCheck
	for i, service := range c.Services {
		for _, check := range service.Checks {
			check.Port = cmp.Or(check.Port, service.InternalPort)
			name := fmt.Sprintf("servicecheck-%02d-%s-%d", len(all), check.Type, check.Port)
			all = append(all, NamedCheck{name, i, check})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Checks)) {
		check := c.Checks[name]
		if check.Port == 0 && len(c.Services) > 0 {
			check.Port = c.Services[0].InternalPort
		}
		all = append(all, NamedCheck{name, -1, check})
	}
	for i := range all {
		check := &all[i].Check
		if check.Interval <= 0 {
			check.Interval = DefaultCheckInterval
		}
		if check.Timeout <= 0 {
			check.Timeout = DefaultCheckTimeout
		}
		if check.Type == "http" {
			check.Method = cmp.Or(check.Method, "GET")
			check.Path = cmp.Or(check.Path, "/")
			check.Protocol = cmp.Or(check.Protocol, "http")
		}
	}
	return all
}

// forgetChecks takes away what checks said of a run that is over: the next one
// begins without.
func forgetChecks(m *Machine) {
	switch m.State {
	case Started, Stopping, Suspending, Suspended:
	default:
		m.Checks = nil
	}
}
