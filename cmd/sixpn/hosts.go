package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func hostsCommand(c *cli) *cobra.Command {
	return c.noun(&cobra.Command{
		Use:     "hosts",
		Aliases: []string{"host"},
		Short:   "Hosts of the fleet, which Machines run on",
		Example: "  sixpn hosts invite --region fra\n  sixpn hosts list",
	}, hostsInvite(c), hostsList(c), hostsShow(c), hostsDrain(c), hostsUndrain(c), hostsRotateKey(c), hostsRemove(c))
}

func hostsInvite(c *cli) *cobra.Command {
	var region string
	var expires time.Duration
	command := &cobra.Command{
		Use:   "invite",
		Short: "Print a token that lets one host into the fleet",
		Long: `Print a token that lets one host into the fleet, until it expires. It is a secret:
whoever has it can join, and whoever has joined can read and write all of the state.
On the new host give it to the agent as $SIXPN_AGENT_JOIN, or with --join, which others
on that host can see, and with it the address at which the others reach that host. Once
the host has joined it needs the token no more.`,
		Example: `  sixpn hosts invite --region fra --expires 15m
  SIXPN_AGENT_JOIN=TOKEN sixpn agent --region fra --underlay 192.0.2.2`,
		Args: cobra.NoArgs,
	}
	command.Flags().StringVarP(&region, "region", "r", "", "region that the host must be in (default any)")
	command.Flags().DurationVar(&expires, "expires", time.Hour, "how long the token is good, up to 720h")
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		if expires <= 0 {
			return usagef("--expires is %v: expected a duration above 0 such as 15m", expires)
		}
		answer, err := client.CreateInvitationWithResponse(ctx, &api.CreateInvitationParams{Wait: c.until()},
			api.CreateInvitationRequest{Region: region, ExpiresIn: api.DurationValue(expires)})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON201)
		}
		fmt.Fprintln(c.out, answer.JSON201.Token)
		c.note("It lets one host in until %s: SIXPN_AGENT_JOIN=TOKEN sixpn agent --underlay ADDRESS", answer.JSON201.ExpiresAt.Local().Format(time.DateTime))
		return nil
	})
}

func hostsDrain(c *cli) *cobra.Command {
	return c.change(&cobra.Command{
		Use:   "drain HOST",
		Short: "Keep new Machines from a host",
		Long: `Keep new Machines from a host. Those that it has stay: migrate or destroy them, then
remove the host, or let it take new ones again with "sixpn hosts undrain".`,
		Example: "  sixpn hosts drain host-1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		answer, err := client.DrainHostWithResponse(ctx, args[0], &api.DrainHostParams{Wait: c.until()})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		fmt.Fprintf(c.out, "Host %s takes no new Machines\n", args[0])
		return nil
	})
}

func hostsUndrain(c *cli) *cobra.Command {
	return c.change(&cobra.Command{
		Use:     "undrain HOST",
		Short:   "Let new Machines onto a host again",
		Example: "  sixpn hosts undrain host-1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		answer, err := client.UndrainHostWithResponse(ctx, args[0], &api.UndrainHostParams{Wait: c.until()})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		fmt.Fprintf(c.out, "Host %s takes new Machines\n", args[0])
		return nil
	})
}

func hostsRotateKey(c *cli) *cobra.Command {
	return c.change(&cobra.Command{
		Use:   "rotate-key HOST",
		Short: "Give a host another key of the mesh",
		Long: `Give a host another key of the mesh. It costs a handshake with each other host: what
Machines have with those of other hosts stands still for some tenths of a second. Only
the agent of that host can.`,
		Example: "  sixpn hosts rotate-key host-1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		answer, err := client.RotateHostKeyWithResponse(ctx, args[0], &api.RotateHostKeyParams{Wait: c.until()})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		fmt.Fprintf(c.out, "Host %s has a new key: each other host makes a new handshake with it\n", args[0])
		return nil
	})
}

func hostsRemove(c *cli) *cobra.Command {
	var yes, force bool
	command := &cobra.Command{
		Use:     "remove HOST",
		Aliases: []string{"rm"},
		Short:   "Remove a host from the fleet",
		Long: `Remove a host from the fleet, for good: its number is never used again, and its agent
is refused from then on, by every host and every member of the fleet's own store; what it
is connected to ends at once. A host that has Machines is refused, unless it is lost and
--force is given: then they are removed with it.`,
		Example: `  sixpn hosts remove host-1 --yes
  sixpn hosts remove host-1 --force --yes`,
		Args: cobra.ExactArgs(1),
	}
	yesFlag(command, &yes)
	command.Flags().BoolVarP(&force, "force", "f", false, "remove its Machines with it; only of a host that is lost")
	return c.change(command, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		question := fmt.Sprintf("Remove host %s for good?", args[0])
		if force {
			question = fmt.Sprintf("Remove host %s and its Machines for good?", args[0])
		}
		if err := c.confirm(yes, question); err != nil {
			return err
		}
		answer, err := client.RemoveHostWithResponse(ctx, args[0], &api.RemoveHostParams{Wait: c.until(), Force: force})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200)
		}
		fmt.Fprintf(c.out, "Removed host %s\n", args[0])
		return nil
	})
}
