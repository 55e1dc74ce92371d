package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// storeOf is where a host thinks that the store is, by hosts.
func storeOf(t *testing.T, f *nettest.Fleet, h *nettest.Host) (at []int) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(h.StateDir(), "fleet", "fleet.json"))
	if os.IsNotExist(err) {
		return nil
	}
	nettest.Must(t, err)
	var known struct{ Endpoints []string }
	nettest.Must(t, json.Unmarshal(content, &known))
	for i, h := range f.Hosts {
		if slices.Contains(known.Endpoints, fmt.Sprintf("https://%v:51822", h.Uplink.V4)) {
			at = append(at, i)
		}
	}
	if len(at) != len(known.Endpoints) {
		t.Errorf("endpoints %v are not all of hosts", known.Endpoints)
	}
	return at
}

// awaitStore waits until each of these hosts knows that the store is on these.
func awaitStore(ctx context.Context, t *testing.T, f *nettest.Fleet, want []int, hosts ...int) {
	t.Helper()
	for _, i := range hosts {
		for {
			got := storeOf(t, f, f.Hosts[i])
			if slices.Equal(got, want) {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatalf("host %d knows the store on hosts %v, expected %v", i, got, want)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// createOrg has a host write something, as often as it takes.
func createOrg(ctx context.Context, t *testing.T, h *nettest.Host, slug string) {
	t.Helper()
	for {
		err := h.CreateOrg(ctx, slug)
		if err == nil || strings.Contains(err.Error(), "exists already") { // an answer that was lost
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("org %s: %v", slug, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// The third host makes the store one of three; when one of them is lost nothing stops,
// a fourth takes its place, and it comes back as a client. Nothing that was acknowledged
// is lost, not even when all die.
func TestStoreOnThreeHosts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "fra"},
		Host: nettest.Config{AgentFlags: []string{
			"--members-interval", "300ms", "--member-replacement", "1s", "--heartbeat-interval", "500ms", "--host-expiry", "2s",
		}},
	})
	createOrg(ctx, t, f.Hosts[1], "two-hosts")
	if at := storeOf(t, f, f.Hosts[1]); !slices.Equal(at, []int{0}) {
		t.Errorf("of two hosts the store is on %v, expected the first", at)
	}
	for range 2 {
		h, err := f.NewHost("ams")
		nettest.Must(t, err)
		nettest.Must(t, f.Join(ctx, h))
	}
	awaitStore(ctx, t, f, []int{0, 1, 2}, 0, 1, 2, 3)
	createOrg(ctx, t, f.Hosts[3], "four-hosts")

	nettest.Must(t, f.Hosts[0].KillAgent())
	createOrg(ctx, t, f.Hosts[3], "first-lost")
	awaitStore(ctx, t, f, []int{1, 2, 3}, 1, 2, 3)
	nettest.Must(t, f.Hosts[0].StartAgent(ctx))
	awaitStore(ctx, t, f, []int{1, 2, 3}, 0)
	createOrg(ctx, t, f.Hosts[0], "first-back")

	for _, h := range f.Hosts {
		nettest.Must(t, h.KillAgent())
	}
	// Two are a majority; each starts without knowing when the other does.
	started := make(chan error, 2)
	for _, h := range f.Hosts[1:3] {
		go func() { started <- h.StartAgent(ctx) }()
	}
	for range 2 {
		nettest.Must(t, <-started)
	}
	createOrg(ctx, t, f.Hosts[1], "all-died")
	nettest.Must(t, nettest.Eventually(ctx, "another host has all that was acknowledged", func(ctx context.Context) error {
		answer, err := f.Hosts[2].Client.ListOrgsWithResponse(ctx)
		if err != nil {
			return err
		}
		var slugs []string
		for _, org := range answer.JSON200.Organizations {
			slugs = append(slugs, org.Slug)
		}
		if got := strings.Join(slugs, " "); got != "all-died first-back first-lost four-hosts two-hosts" {
			return fmt.Errorf("it has the orgs %s", got)
		}
		return nil
	}))
}

// A host that is removed while its agent runs, a member of the store, is out of the fleet
// and of the store at once: it changes nothing more, and does not start again.
func TestRemovedVoter(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{
		Regions: []string{"iad", "fra", "ams"}, Host: nettest.Config{AgentFlags: []string{"--members-interval", "300ms"}},
	})
	awaitStore(ctx, t, f, []int{0, 1, 2}, 0, 1, 2)
	first, removed := f.Hosts[0], f.Hosts[2]
	createOrg(ctx, t, removed, "before")
	// What takes the member out is not the next look at the members, which is far away.
	for _, h := range f.Hosts[:2] {
		nettest.Must(t, h.StopAgent(ctx))
		nettest.Must(t, h.StartAgent(ctx, "--members-interval", "1h"))
	}
	createOrg(ctx, t, first, "looks-rarely")
	answer, err := first.Client.RemoveHostWithResponse(ctx, removed.Name, &api.RemoveHostParams{})
	nettest.Must(t, api.Check(answer, err))
	// Etcd takes no member out before all have been connected for five seconds.
	nettest.Must(t, nettest.Eventually(ctx, "the member of the removed host is taken out", func(ctx context.Context) error {
		store, err := first.Client.GetStoreWithResponse(ctx)
		if err := api.Check(store, err); err != nil {
			return err
		}
		for _, m := range store.JSON200.Members {
			if m.Host == removed.Name || m.Host == "" {
				return fmt.Errorf("the store still has the member %+v", m)
			}
		}
		return nil
	}))
	// It waits for a store that it does not reach.
	limited, cancelLimited := context.WithTimeout(ctx, 3*time.Second)
	defer cancelLimited()
	if err := removed.CreateOrg(limited, "after"); err == nil {
		t.Error("a removed host changes the fleet")
	}
	createOrg(ctx, t, first, "others")
	nettest.Must(t, nettest.Eventually(ctx, "its log and its status say why", func(ctx context.Context) error {
		content, err := os.ReadFile(removed.LogPath())
		if err != nil {
			return err
		}
		status, err := removed.Status(ctx)
		if err == nil && !(strings.Contains(string(content), "of the fleet no more") && strings.Contains(status.Agent.Message, "it was removed")) {
			err = fmt.Errorf("its status is %q", status.Agent.Message)
		}
		return err
	}))
	nettest.Must(t, removed.KillAgent())
	nettest.Must(t, os.RemoveAll(filepath.Join(removed.StateDir(), "last-state")))
	refusesToStart(ctx, t, removed, "it was removed")
}

// refusesToStart wants an agent not to start, and to say why.
func refusesToStart(ctx context.Context, t *testing.T, h *nettest.Host, why string, flags ...string) {
	t.Helper()
	before, err := os.ReadFile(h.LogPath())
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := h.TryAgent(ctx, flags...); err == nil {
		t.Fatalf("the agent started, expected %q", why)
	}
	after, err := os.ReadFile(h.LogPath())
	nettest.Must(t, err)
	if said := string(after[len(before):]); !strings.Contains(said, why) {
		t.Errorf("the agent said %s, expected %q", said, why)
	}
}

// A token that cannot be used changes nothing, and the error says why.
func TestJoinIsRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{Regions: []string{"iad"}})
	good, err := f.Hosts[0].Invite(ctx)
	nettest.Must(t, err)
	forged, err := nettest.ForgeToken(good)
	nettest.Must(t, err)
	h, err := f.NewHost("fra")
	nettest.Must(t, err)
	for _, row := range []struct{ token, says string }{
		{forged, "forged or damaged"},
		{good[:len(good)-10], "damaged or cut off"},
	} {
		refusesToStart(ctx, t, h, row.says, "--join", row.token)
	}
	nettest.Must(t, h.StartAgent(ctx, "--join", good))
	nettest.Must(t, h.StopAgent(ctx))
	nettest.Must(t, h.StartAgent(ctx)) // without it, and with the one that is used by now
	nettest.Must(t, h.StopAgent(ctx))
	nettest.Must(t, h.StartAgent(ctx, "--join", good))

	third, err := f.NewHost("fra")
	nettest.Must(t, err)
	refusesToStart(ctx, t, third, "was used at", "--join", good)
	// One that has been alone keeps what it has.
	nettest.Must(t, f.Hosts[0].StopAgent(ctx))
	refusesToStart(ctx, t, f.Hosts[0], "a store of its own", "--join", good)
}

// A host that was alone, with its state, becomes the first of a fleet.
func TestAloneBecomesAFleet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	f, err := nettest.NewFleet(nettest.FleetConfig{})
	nettest.Must(t, err)
	t.Cleanup(func() { nettest.Must(t, f.Close()) })
	first, err := nettest.NewHost(nettest.Config{Underlay: f.Underlay})
	nettest.Must(t, err)
	f.Hosts = append(f.Hosts, first) // which closes it
	nettest.Must(t, first.StartAgent(ctx, "--host-name", "first"))
	createOrg(ctx, t, first, "alone")
	nettest.Must(t, first.StopAgent(ctx))
	nettest.Must(t, first.StartAgent(ctx, "--host-name", "first", "--underlay", first.Uplink.V4.String()))
	second, err := f.NewHost("fra")
	nettest.Must(t, err)
	nettest.Must(t, f.Join(ctx, second))
	answer, err := second.Client.ListOrgsWithResponse(ctx)
	nettest.Must(t, err)
	if orgs := answer.JSON200.Organizations; len(orgs) != 1 || orgs[0].Slug != "alone" {
		t.Errorf("orgs %+v on the second host, expected that of the first", orgs)
	}
}
