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
		Use:     "status ID",
		Short:   "Show a Machine",
		Example: "  sixpn machine status 148e21dad76789\n  sixpn machine status --display-config 148e21dad76789",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		app, m, err := find(ctx, client, app, args[0])
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(m)
		}
		if err := c.printMachine(app, m); err != nil || !display {
			return err
		}
		fmt.Fprint(c.out, "\nConfig:\n")
		return c.printJSON(m.Config)
	})
	anyAppFlag(command, &app)
	command.Flags().BoolVarP(&display, "display-config", "d", false, "show its configuration too")
	return command
}

func (c *cli) printMachine(app string, m api.Machine) error {
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
		"Last run", last, "Restarts", restarts, "Region", m.Region, "Host", m.HostName, "Migration", migrationText(m.Migration),
		"Private IP", m.PrivateIP,
		"Process group", groupOf(m), "Command", strings.Join(words(m.Config.Init), " "), "Attached", attachText(m.Config.Attach),
		"Relayed", relayedText(m.RelayedPorts),
		"Instance ID", m.InstanceID, "Created", m.CreatedAt.Format(time.RFC3339), "Updated", m.UpdatedAt.Format(time.RFC3339),
	)
	if err != nil {
		return err
	}
	var checks, ports, events [][]string
	for _, check := range m.Checks {
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
	return c.sections([]section{
		{"CHECK,STATUS,LAST CHANGE,OUTPUT", checks},
		{"PORT,PROTOCOL,INTERNAL PORT,HANDLERS", ports},
		{"STATE,EVENT,SOURCE,TIMESTAMP,INFO", events},
	})
}

// words is the command that an init stands for.
func words(init api.Init) []string {
	if len(init.Exec) > 0 {
		return init.Exec
	}
	return slices.Concat(init.Entrypoint, init.Cmd)
}

func attachText(a *api.Attach) string {
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
	return fmt.Sprintf("network namespace of process %d", a.Pid)
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
