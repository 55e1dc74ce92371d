package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/loader"
)

// agent asks the agent how it is. status is nil if there is no answer.
func (c *Config) agent(ctx context.Context) (*api.Status, []Finding) {
	const check = "agent"
	asked, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	answer, err := c.Client.GetStatusWithResponse(asked)
	if err := api.Check(answer, err); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, []Finding{warn(check, "start it with: sixpn agent --name "+c.Name, "agent %q does not run", c.Name)}
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, []Finding{warn(check, useSudo, "it cannot be asked: %v", err)}
		}
		return nil, []Finding{fail(check, "look into its log, and start it again", "it does not answer: %v", err)}
	}
	s := answer.JSON200
	if s.Agent.Message != "" {
		return s, []Finding{fail(check, "look into its log", "agent %q is in trouble: %s", s.Agent.Name, s.Agent.Message)}
	}
	return s, []Finding{ok(check, "agent %q, version %s, host %s in %s", s.Agent.Name, s.Agent.Version, s.Agent.HostName, s.Agent.Region)}
}

// data looks at what a running agent keeps in the kernel.
func (c *Config) data(ctx context.Context, status api.Status) []Finding {
	findings := c.applied(ctx, status)
	findings = append(findings, c.members(ctx)...)
	findings = append(findings, c.mesh(status)...)
	findings = append(findings, c.ports(status)...)
	return append(findings, c.machines(ctx)...)
}

// mesh says what is to be known of the way to other hosts.
func (c *Config) mesh(status api.Status) []Finding {
	const check = "mesh"
	m := status.Mesh
	switch m.Mode {
	case "":
		return nil // this host is alone
	case api.MeshStatusModeWireguard:
		return []Finding{ok(check, "%s is encrypted", m.Device)}
	}
	findings := []Finding{warn(check, "see to it that nobody but the hosts of this fleet is on that network; otherwise start every agent with --mesh wireguard",
		"it is native: packets on %s are not encrypted, and whoever is on that network can speak for any host", m.Device)}
	switch m.Xdp {
	case api.MeshStatusXdpGeneric:
		findings = append(findings, warn(check, "give this host a network card whose driver has XDP; a bond, bridge or VLAN in front of one may not have it",
			"the driver of %s has no XDP: the kernel's generic one takes packets from it, which comes after the kernel has made a packet of each frame, and costs each a copy and the look of tcx besides", m.Device))
	case api.MeshStatusXdpNone:
		findings = append(findings, warn(check, "take the other XDP program off (ip link show), or give this host a network card whose driver has XDP",
			"%s takes no XDP program: packets from it go the slower way of the host's own", m.Device))
	}
	return findings
}

// applied waits until the data plane has what is wanted: it is behind for a moment
// after every change.
func (c *Config) applied(ctx context.Context, status api.Status) []Finding {
	const check = "data plane"
	wanted := status.Revision.Wanted
	for end := time.Now().Add(c.Settle); status.Revision.Applied < wanted; {
		if time.Now().After(end) || ctx.Err() != nil {
			return []Finding{fail(check, "look into the agent's log for what cannot be applied",
				"revision %d is wanted and %d applied, for %v already", wanted, status.Revision.Applied, c.Settle)}
		}
		select {
		case <-ctx.Done():
		case <-time.After(c.Settle / 20):
		}
		answer, err := c.Client.GetStatusWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return []Finding{fail(check, "look into the agent's log", "%v", err)}
		}
		status = *answer.JSON200
	}
	return []Finding{ok(check, "revision %d is applied", wanted)}
}

// ports demands the router and the drop filter on each device.
func (c *Config) ports(status api.Status) []Finding {
	const check = "ports"
	if !c.root() {
		return []Finding{warn(check, useSudo, "programs of devices cannot be seen by user %d", c.Euid)}
	}
	const remedy = "keep other tools away from the device, and start the agent again: it repairs its devices"
	var findings []Finding
	for _, port := range status.Ports {
		seen, err := loader.Look(uint32(port.Ifindex))
		switch {
		case err != nil:
			findings = append(findings, fail(check, "run it in the network namespace of the agent; if this is it, start the agent again",
				"device %s, number %d, cannot be looked at: %v", port.Device, port.Ifindex, err))
		case seen.Router != status.Agent.Name:
			findings = append(findings, fail(check, remedy, "%s: nothing that it sends is routed: the router is %s", port.Device, orNone(seen.Router)))
		case port.Kind == "uplink": // the host's own device: it has no drop filter, and is not closed
		case seen.Filter != status.Agent.Name:
			findings = append(findings, fail(check, remedy, "%s: it would be open if its router went: the drop filter is %s", port.Device, orNone(seen.Filter)))
		}
	}
	if len(findings) == 0 {
		findings = append(findings, ok(check, "%d, each with its router and its drop filter", len(status.Ports)))
	}
	return findings
}

func orNone(agent string) string {
	if agent == "" {
		return "missing"
	}
	return fmt.Sprintf("that of agent %q", agent)
}

// machines names those that are not as they should be.
func (c *Config) machines(ctx context.Context) []Finding {
	const check = "Machines"
	answer, err := c.Client.ListAppsWithResponse(ctx, &api.ListAppsParams{})
	if err := api.Check(answer, err); err != nil {
		return []Finding{fail(check, "look into the agent's log", "they cannot be listed: %v", err)}
	}
	var findings []Finding
	started := 0
	for _, app := range answer.JSON200.Apps {
		answer, err := c.Client.ListMachinesWithResponse(ctx, app.Name, &api.ListMachinesParams{})
		if api.Check(answer, err) != nil {
			continue // the app is gone
		}
		for _, m := range *answer.JSON200 {
			if m.State == "started" {
				started++
			}
			if m.State == "failed" {
				remedy := "see: sixpn machine logs " + m.ID
				if m.Config.Attach != nil { // it writes no logs
					remedy = fmt.Sprintf("start it with: sixpn machine start %s, or remove it with: sixpn machine detach %s", m.ID, m.ID)
				}
				findings = append(findings, warn(check, remedy, "%s of app %s has failed: %s", m.ID, app.Name, m.Message))
			}
			var critical []string
			for _, check := range m.Checks {
				if check.Status == "critical" {
					critical = append(critical, strings.TrimSpace(check.Name+" "+check.Output))
				}
			}
			if len(critical) > 0 {
				findings = append(findings, warn(check, "see: sixpn machine status "+m.ID, "%s of app %s fails its checks: %s", m.ID, app.Name, strings.Join(critical, "; ")))
			}
		}
	}
	if len(findings) == 0 {
		findings = append(findings, ok(check, "%d started, none fails a check", started))
	}
	return findings
}
