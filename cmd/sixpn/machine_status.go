package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func machineStatus(c *cli) *cobra.Command {
	var app string
	var display bool
	command := c.verb(&cobra.Command{
		Use:   "status ID",
		Short: "Show a Machine",
		Long: `Show a Machine: its record, and what its host sees of it now, which only the agent of that
host knows: what passes by its device, what of it is dropped and why, what its health
checks say, and how the limits of its services are divided among the hosts with clients.
While that agent does not answer, what the record has is shown, and that it does not answer.`,
		Example: "  sixpn machine status 148e21dad76789\n  sixpn machine status --display-config 148e21dad76789",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		app, m, err := find(ctx, client, app, args[0])
		if err != nil {
			return err
		}
		seen := seenMachine{Machine: m}
		answer, err := client.GetMachineLiveWithResponse(ctx, app, m.ID)
		if err := api.Check(answer, err); err != nil {
			seen.NoAnswer = err.Error()
		} else {
			seen.Live = answer.JSON200
		}
		if c.json {
			return c.printJSON(seen)
		}
		if err := c.printMachine(app, seen); err != nil || !display {
			return err
		}
		fmt.Fprint(c.out, "\nConfig:\n")
		return c.printJSON(m.Config)
	})
	anyAppFlag(command, &app)
	command.Flags().BoolVarP(&display, "display-config", "d", false, "show its configuration too")
	return command
}

// seenMachine is a Machine's record, and what its host sees of it.
type seenMachine struct {
	api.Machine
	Live     *api.MachineLive `json:"live,omitempty"`
	NoAnswer string           `json:"no_answer,omitempty"` // why that is missing
}

func (c *cli) printMachine(app string, m seenMachine) error {
	last := ""
	if exit := m.LastExit(); exit != nil {
		last = fmt.Sprintf("exit code %d, %s", exit.ExitCode, ago(exit.ExitedAt))
	}
	restarts := ""
	if m.Restarts > 0 {
		restarts = strconv.Itoa(m.Restarts)
	}
	cordoned := ""
	if m.Cordoned {
		cordoned = "takes no new Flycast connection"
	}
	err := c.pairs(
		"Machine ID", m.ID, "Name", m.Name, "App", app, "State", m.State, "Message", m.Message, "Cordoned", cordoned,
		"Last run", last, "Restarts", restarts, "Region", m.Region, "Host", m.HostName, "No answer", m.noAnswer(), "Migration", migrationText(m.Migration),
		"Private IP", m.PrivateIP,
		"Process group", groupOf(m.Machine), "Command", strings.Join(words(m.Config.Init), " "), "Attached", attachText(m.Config.Attach, m.HostName),
		"Relayed", relayedText(m.RelayedPorts),
		"Instance ID", m.InstanceID, "Created", m.CreatedAt.Format(time.RFC3339), "Updated", m.UpdatedAt.Format(time.RFC3339),
	)
	if err != nil {
		return err
	}
	var checks, ports, events, devices, drops, limits [][]string
	for _, check := range m.checks() {
		// What an HTTP server answered may be long, or have lines of its own.
		output, _, _ := strings.Cut(strings.TrimSpace(check.Output), "\n")
		checks = append(checks, []string{check.Name, check.Status, ago(check.UpdatedAt), output})
	}
	for _, s := range m.Config.Services {
		for _, p := range s.Ports {
			ports = append(ports, []string{portText(p), s.Protocol, strconv.Itoa(s.InternalPort), strings.Join(p.Handlers, " ")})
		}
	}
	for _, event := range m.Events {
		info := ""
		if exit := event.Request.ExitEvent; exit != nil {
			info = fmt.Sprintf("exit_code=%d,requested_stop=%t", exit.ExitCode, exit.RequestedStop)
		}
		events = append(events, []string{event.Status, event.Type, event.Source, time.UnixMilli(event.Timestamp).UTC().Format(time.RFC3339), info})
	}
	if m.Live != nil {
		if p := m.Live.Port; p != nil {
			devices = append(devices, []string{p.Device, strconv.Itoa(p.MTU), traffic(p.RxPackets, p.RxBytes), traffic(p.TxPackets, p.TxBytes), number(p.Dropped)})
		}
		for _, d := range m.Live.Drops {
			drops = append(drops, []string{d.Reason, number(d.Packets)})
		}
		limits = limitRows(m.Live.Limits)
	}
	return c.sections([]section{
		{"CHECK,STATUS,LAST CHANGE,OUTPUT", checks},
		{"PORT,PROTOCOL,INTERNAL PORT,HANDLERS", ports},
		{"DEVICE,MTU,SENT,RECEIVED,DROPPED", devices},
		{"DROP REASON,PACKETS", drops},
		{"SERVICE,SOFT LIMIT,HARD LIMIT,CLIENTS ON,FLOWS,MAY HAVE,STANDING", limits},
		{"STATE,EVENT,SOURCE,TIMESTAMP,INFO", events},
	})
}

// checks are as its host sees them, else as they were last written down.
func (m *seenMachine) checks() []api.CheckStatus {
	if m.Live != nil && len(m.Live.Checks) > 0 {
		return m.Live.Checks
	}
	return m.Checks
}

func (m *seenMachine) noAnswer() string {
	if m.NoAnswer == "" {
		return ""
	}
	return "this is what was last written down: " + m.NoAnswer
}

// limitRows has a row for each host with clients of a service, or one for a service without.
func limitRows(limits []api.LimitStatus) (rows [][]string) {
	limit := func(n int) string {
		if n == 0 {
			return "none"
		}
		return strconv.Itoa(n)
	}
	for _, l := range limits {
		service := []string{fmt.Sprintf("[%s]:%d/%s", l.Vip, l.Port, l.Protocol), limit(l.SoftLimit), limit(l.HardLimit)}
		if len(l.Hosts) == 0 {
			rows = append(rows, append(service, "", "", "", ""))
		}
		for _, h := range l.Hosts {
			share, standing := "any", string(h.Standing)
			if l.HardLimit != 0 {
				share = strconv.Itoa(h.Share)
			}
			if h.Waiting {
				standing += ", one waits"
			}
			rows = append(rows, append(slices.Clone(service), h.HostName, strconv.Itoa(h.Flows), share, standing))
		}
	}
	return rows
}

// traffic is what passed by a device.
func traffic(packets, bytes uint64) string {
	return fmt.Sprintf("%d packets, %d bytes", packets, bytes)
}

// words is the command that an init stands for.
func words(init api.Init) []string {
	if len(init.Exec) > 0 {
		return init.Exec
	}
	return slices.Concat(init.Entrypoint, init.Cmd)
}

// attachText names what was attached, on which host.
func attachText(a *api.Attach, host string) string {
	switch {
	case a == nil:
		return ""
	case a.Device != "" && a.Mac != "":
		return fmt.Sprintf("device %s, MAC address %s", a.Device, a.Mac)
	case a.Device != "":
		return "device " + a.Device
	case a.Netns != "":
		return "network namespace " + a.Netns
	}
	return fmt.Sprintf("network namespace of process %d of host %s", a.Pid, host)
}

// relayedText tells what a server that listens with IPv4 only gives up.
func relayedText(ports []int) string {
	if len(ports) == 0 {
		return ""
	}
	var text []string
	for _, port := range ports {
		text = append(text, strconv.Itoa(port))
	}
	return strings.Join(text, ", ") + " (IPv4 only: the client's address is lost; listen on [::] to see it)"
}

func portText(p api.ServicePort) string {
	if p.Port != 0 {
		return strconv.Itoa(p.Port)
	}
	return fmt.Sprintf("%d-%d", p.StartPort, p.EndPort)
}
