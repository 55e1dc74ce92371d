package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func pingCommand(c *cli) *cobra.Command {
	var p place
	var request api.PingRequest
	var interval, timeout time.Duration
	var size int
	command := &cobra.Command{
		Use:   "ping [TARGET]",
		Short: "Ping a Machine from inside its network",
		Long: `Send ICMPv6 echo requests from this host's address in a network to a Machine, by its
address or a name, or to the network's resolver if there is no TARGET. A Flycast
address answers Machines only.

Exit code 0 if any reply came, 1 if none did.`,
		Example: `  sixpn ping web.internal --org acme
  sixpn ping fdaa:0:1:a7b:1:0:2:0 -c 10 -i 100ms
  sixpn ping --app web`,
		Args: cobra.MaximumNArgs(1),
	}
	p.flags(command)
	flags := command.Flags()
	flags.IntVarP(&request.Count, "count", "c", 4, "how many to send, 1 to 1000")
	flags.DurationVarP(&interval, "interval", "i", time.Second, "time between two")
	flags.DurationVarP(&timeout, "timeout", "w", 2*time.Second, "how long to wait for each reply")
	flags.IntVarP(&size, "size", "s", 56, "bytes of data in each")
	return c.verb(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		if request.Count < 1 || interval <= 0 || timeout <= 0 {
			return usagef("--count is %d, --interval %v and --timeout %v, expected more than 0", request.Count, interval, timeout)
		}
		if err := p.find(ctx, client); err != nil {
			return err
		}
		request.Network, request.Size = p.network, &size
		request.Interval, request.Timeout = api.DurationValue(interval), api.DurationValue(timeout)
		if len(args) > 0 {
			request.Target = args[0]
		}
		response, err := client.Ping(ctx, p.org, &api.PingParams{HostName: p.host}, request)
		if err := api.CheckResponse(response, err); err != nil {
			return err
		}
		defer response.Body.Close()
		return c.printPing(response.Body, size)
	})
}

// printPing shows the lines as they come, with --json as they are.
func (c *cli) printPing(body io.Reader, size int) error {
	lines := bufio.NewScanner(body)
	var last api.PingLine
	for first := true; lines.Scan(); first = false {
		var line api.PingLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("the agent's answer cannot be read: %w", err)
		}
		last = line
		if c.json {
			fmt.Fprintf(c.out, "%s\n", lines.Bytes())
			continue
		}
		if first && line.Type != "summary" {
			fmt.Fprintf(c.out, "PING %s (%s): %d data bytes\n", orAddress(line), line.Address, size)
		}
		c.printPingLine(line)
	}
	switch {
	case lines.Err() != nil:
		return fmt.Errorf("the agent's answer breaks off: %w", lines.Err())
	case last.Type != "summary":
		return errors.New("the agent's answer breaks off: it has no summary")
	case last.Received == 0:
		return exitCode(exitFailed)
	}
	return nil
}

func orAddress(line api.PingLine) string {
	if line.Target != "" {
		return line.Target
	}
	return line.Address
}

func (c *cli) printPingLine(line api.PingLine) {
	switch line.Type {
	case "reply":
		fmt.Fprintf(c.out, "%d bytes from %s: icmp_seq=%d hlim=%d time=%.3f ms\n",
			line.Bytes, line.Address, line.Sequence, line.HopLimit, line.RoundTripUs/1000)
	case "timeout":
		fmt.Fprintf(c.out, "no reply to icmp_seq=%d\n", line.Sequence)
	case "error":
		fmt.Fprintf(c.out, "from %s: icmp_seq=%d %s\n", line.Address, line.Sequence, line.Message)
	case "summary":
		fmt.Fprintf(c.out, "\n--- %s ping statistics ---\n", orAddress(line))
		fmt.Fprintf(c.out, "%d packets transmitted, %d received, %d%% packet loss\n",
			line.Sent, line.Received, 100*(line.Sent-line.Received)/max(1, line.Sent))
		if line.Received > 0 {
			fmt.Fprintf(c.out, "round-trip min/avg/max = %.3f/%.3f/%.3f ms\n", line.MinUs/1000, line.MeanUs/1000, line.MaxUs/1000)
		}
	}
}
