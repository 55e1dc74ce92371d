package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func statusCommand(c *cli) *cobra.Command {
	var app string
	command := c.verb(&cobra.Command{
		Use:   "status",
		Short: "What the agent and its data plane are doing, or an app",
		Long: `Show the agent, the hosts of its fleet as "sixpn hosts list" does, the ports of its
router, the Flycast services, and what was dropped and why. With --app show that app, its
addresses and its Machines.`,
		Example: "  sixpn status\n  sixpn status --app web",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		if app != "" {
			return c.showApp(ctx, client, app)
		}
		answer, err := client.GetStatusWithResponse(ctx)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		hosts, err := client.ListHostsWithResponse(ctx, &api.ListHostsParams{Ask: true})
		if err := api.Check(hosts, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(struct {
				api.Status
				Hosts []api.Host `json:"hosts"`
			}{*answer.JSON200, hosts.JSON200.Hosts})
		}
		return c.printStatus(*answer.JSON200, hosts.JSON200.Hosts)
	})
	command.Flags().StringVarP(&app, "app", "a", "", "app to show instead of the agent")
	return command
}

func (c *cli) printStatus(s api.Status, hosts []api.Host) error {
	revision := fmt.Sprintf("%d applied, as wanted", s.Revision.Applied)
	if s.Revision.Applied != s.Revision.Wanted {
		revision = fmt.Sprintf("%d applied, %d wanted", s.Revision.Applied, s.Revision.Wanted)
	}
	if err := c.pairs(
		"Agent", fmt.Sprintf("%s, version %s, process %d, started %s", s.Agent.Name, s.Agent.Version, s.Agent.Pid, ago(s.Agent.StartedAt)),
		"Host", fmt.Sprintf("%s, %s, region %s", s.Agent.HostName, s.Agent.Host, s.Agent.Region),
		"Mesh", meshText(s.Mesh),
		"Revision", revision,
		"Trouble", s.Agent.Message,
	); err != nil {
		return err
	}
	var ports, services, drops [][]string
	for _, p := range s.Ports {
		ports = append(ports, []string{p.Device, p.Kind, p.App, p.MachineID, p.Address, strconv.Itoa(p.MTU),
			number(p.RxPackets), number(p.TxPackets), number(p.Dropped)})
	}
	for _, s := range s.Services {
		services = append(services, serviceRow(s))
	}
	for _, d := range s.Drops {
		drops = append(drops, []string{d.Reason, number(d.Packets)})
	}
	var fleet [][]string
	if len(hosts) > 1 {
		fleet = hostRows(hosts)
	}
	return c.sections([]section{
		{hostColumns, fleet},
		{"PORT,KIND,APP,MACHINE,ADDRESS,MTU,SENT,RECEIVED,DROPPED", ports},
		{"VIP,PORTS,APP,ACTION,BACKENDS,DRAINING,FLOWS", services},
		{"DROP REASON,PACKETS", drops},
	})
}

// meshText is "" for a host that is alone.
func meshText(m api.MeshStatus) string {
	if m.Mode == "" {
		return ""
	}
	text := fmt.Sprintf("%s, device %s of MTU %d", m.Mode, m.Device, m.MTU)
	if m.Xdp != "" {
		text += ", XDP " + string(m.Xdp)
	}
	return text
}

func serviceRow(s api.ServiceStatus) []string {
	ports := strconv.Itoa(s.FirstPort)
	if s.LastPort != s.FirstPort {
		ports += "-" + strconv.Itoa(s.LastPort)
	}
	action := s.Action
	if s.CrossNetwork {
		action += ", cross-network"
	}
	var flows uint64
	for _, b := range s.Backends {
		flows += b.Flows
	}
	return []string{s.Vip, ports + "/" + s.Protocol, s.App, action, strconv.Itoa(len(s.Backends)), strconv.Itoa(s.Draining), number(flows)}
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
