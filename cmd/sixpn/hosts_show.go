package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sixpn/sixpn/api"
)

func hostsList(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the hosts of the fleet",
		Long: `List the hosts of the fleet, as seen from this one. ROUND TRIP, LOSS and HANDSHAKE are
of the mesh between the two. REVISION is the one of the store that the host's data plane
has, as its agent says when it is asked for this list, with the one that it wants if that
is another; STORE whether it has a vote in the store; SEEN when there was last a sign of
its life.`,
		Example: "  sixpn hosts list\n  sixpn hosts list --json | jq -r '.[] | select(.state == \"lost\") | .name'",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, client *api.ClientWithResponses, _ []string) error {
		answer, err := client.ListHostsWithResponse(ctx, &api.ListHostsParams{Ask: true})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		if c.json {
			return c.printJSON(answer.JSON200.Hosts)
		}
		return c.table(hostColumns, hostRows(answer.JSON200.Hosts))
	})
}

func hostsShow(c *cli) *cobra.Command {
	return c.verb(&cobra.Command{
		Use:     "show HOST",
		Short:   "Show a host",
		Long:    "Show a host, as seen from this one, and as its agent says itself when it is asked.",
		Example: "  sixpn hosts show host-1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, client *api.ClientWithResponses, args []string) error {
		answer, err := client.GetHostWithResponse(ctx, args[0], &api.GetHostParams{Ask: true})
		if err := api.Check(answer, err); err != nil {
			return err
		}
		h := answer.JSON200
		if c.json {
			return c.printJSON(h)
		}
		is := string(h.State)
		if h.Draining && h.State == api.HostStateLost {
			is += ", draining"
		}
		return c.pairs("Name", h.Name, "ID", h.ID, "Region", h.Region, "State", is, "Endpoint", h.Endpoint,
			"Public key", h.PublicKey, "Mesh", hostMesh(*h), "Machines", fmt.Sprint(h.Machines),
			"Round trip", measure(h.RoundTripMs, "%.1f ms"), "Loss", lossText(*h), "Handshake", agoOrNot(h.HandshakeAt), "Seen", agoOrNot(h.SeenAt),
			"Wanted revision", revision(h.WantedRevision), "Applied revision", revision(h.AppliedRevision), "Store", string(h.Store),
			"Version", h.Version, "Created", ago(h.CreatedAt), "Trouble", h.Message, "No answer", h.Error)
	})
}

// hostMesh is how a host's mesh is carried, "" while that is not known.
func hostMesh(h api.Host) string {
	if h.MeshXdp == "" {
		return h.Mesh
	}
	return h.Mesh + ", XDP " + string(h.MeshXdp)
}

const hostColumns = "NAME,ID,REGION,STATE,ENDPOINT,MACHINES,ROUND TRIP,LOSS,HANDSHAKE,REVISION,STORE,SEEN,VERSION"

func hostRows(hosts []api.Host) (rows [][]string) {
	for _, h := range hosts {
		rows = append(rows, []string{
			h.Name, h.ID, h.Region, string(h.State), h.Endpoint, fmt.Sprint(h.Machines), measure(h.RoundTripMs, "%.1f ms"), lossText(h),
			shortAgo(h.HandshakeAt), revisionText(h), string(h.Store), shortAgo(h.SeenAt), h.Version,
		})
	}
	return rows
}

// lossText is how many of the latest echo requests had no answer.
func lossText(h api.Host) string {
	if h.Loss == nil {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100**h.Loss)
}

func revisionText(h api.Host) string {
	switch {
	case h.Answers != nil && !*h.Answers:
		return "no answer"
	case h.AppliedRevision != h.WantedRevision:
		return fmt.Sprintf("%d of %d", h.AppliedRevision, h.WantedRevision)
	}
	return revision(h.AppliedRevision)
}

// revision is one that may not be known.
func revision(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// shortAgo is how long ago something was, in the words of a table: 12s, 3m0s, 5h0m0s.
func shortAgo(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	age := max(0, time.Since(t))
	if age >= time.Hour {
		return age.Round(time.Minute).String()
	}
	return age.Round(time.Second).String()
}

func agoOrNot(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if age := time.Since(t); age < time.Minute {
		return fmt.Sprintf("%d s ago", int(max(0, age).Seconds()))
	}
	return ago(t)
}
