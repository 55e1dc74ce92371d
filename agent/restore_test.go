package agent_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/agent"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/state"
)

// The store is lost for good: the first host starts again from an export, with its
// number and its Machine, and another joins it again and stays what it was.
func TestRestore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{Host: nettest.Config{AgentFlags: []string{"--heartbeat-interval", "500ms", "--host-expiry", "2s"}}})
	first, second := f.Hosts[0], f.Hosts[1]
	createOrg(ctx, t, first, "acme")
	nettest.Must(t, first.CreateApp(ctx, "web", "acme"))
	server := nettest.Get[*nettest.Machine](t)(first.Run(ctx, "web", nettest.Options{}, first.Payload("serve", "-tcp", "8080")...))
	hosts := hostIDs(ctx, t, first)

	export := exportOf(ctx, t, first)
	for _, h := range f.Hosts {
		nettest.Must(t, h.KillAgent())
	}
	nettest.Must(t, os.RemoveAll(filepath.Join(first.StateDir(), "store")))
	config := agent.Config{Name: first.Name, StateDir: first.StateDir(), RunDir: first.RunDir()}
	if _, err := agent.RestoreStore(ctx, config, bytes.NewReader(export[:len(export)-10])); err == nil {
		t.Error("an export that was cut off is restored")
	}
	done, err := agent.RestoreStore(ctx, config, bytes.NewReader(export))
	nettest.Must(t, err)
	if done.Records == 0 || done.Aside != "" {
		t.Errorf("restored %+v, expected records and no store of before", done)
	}
	nettest.Must(t, first.StartAgent(ctx))
	for _, old := range []string{"fleet/fleet.json", "last-state"} {
		nettest.Must(t, os.RemoveAll(filepath.Join(second.StateDir(), old)))
	}
	nettest.Must(t, f.Join(ctx, second))
	nettest.Must(t, f.Meet(ctx))
	for _, h := range f.Hosts {
		if got := hostIDs(ctx, t, h); len(got) != 2 || got[first.Name] != hosts[first.Name] || got[second.Name] != hosts[second.Name] {
			t.Errorf("hosts are %v, expected %v as before", got, hosts)
		}
	}
	client := nettest.Get[*nettest.Machine](t)(second.Run(ctx, "web", nettest.Options{}, second.Payload("idle")...))
	connects(ctx, t, client, at(server.Addr, 8080))
}

// A store that was restored from an older export is taken up by a host at work, which
// keeps all that it runs, and brings what the export does not know.
func TestRestoreIsTakenUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{Host: nettest.Config{AgentFlags: []string{"--heartbeat-interval", "500ms", "--host-expiry", "2s"}}})
	first, second := f.Hosts[0], f.Hosts[1]
	createOrg(ctx, t, first, "acme")
	nettest.Must(t, first.CreateApp(ctx, "web", "acme"))
	export := exportOf(ctx, t, first)
	createOrg(ctx, t, first, "young")
	nettest.Must(t, first.CreateApp(ctx, "shop", "young"))
	hosts := hostIDs(ctx, t, first)
	var late []*nettest.Machine
	for _, h := range f.Hosts {
		for _, app := range []string{"web", "shop"} {
			late = append(late, nettest.Get[*nettest.Machine](t)(h.Run(ctx, app, nettest.Options{}, h.Payload("serve", "-tcp", "8080")...)))
		}
	}
	nettest.Must(t, first.StopAgent(ctx))
	config := agent.Config{Name: first.Name, StateDir: first.StateDir(), RunDir: first.RunDir()}
	done, err := agent.RestoreStore(ctx, config, bytes.NewReader(export))
	nettest.Must(t, err)
	if done.Aside == "" {
		t.Error("the store of before was not kept")
	}
	pid := second.AgentPID()
	nettest.Must(t, first.StartAgent(ctx))
	for _, h := range f.Hosts {
		nettest.Must(t, nettest.Eventually(ctx, "a host takes orders, and knows the Machines", func(ctx context.Context) error {
			if err := h.CreateApp(ctx, "after-"+h.Name, "acme"); err != nil && !strings.Contains(err.Error(), "taken") {
				return err
			}
			for _, m := range late {
				if err := api.Check(h.Client.GetMachineWithResponse(ctx, m.App, m.ID)); err != nil {
					return err
				}
			}
			return nil
		}))
		if got := hostIDs(ctx, t, h); len(got) != 2 || got[first.Name] != hosts[first.Name] || got[second.Name] != hosts[second.Name] {
			t.Errorf("hosts are %v, expected %v as before", got, hosts)
		}
	}
	if second.AgentPID() != pid {
		t.Error("the second agent was started anew: nothing is tested")
	}
	nettest.Must(t, f.Meet(ctx))
	for _, from := range f.Hosts {
		for i, app := range []string{"web", "shop"} {
			client := nettest.Get[*nettest.Machine](t)(from.Run(ctx, app, nettest.Options{}, from.Payload("idle")...))
			connects(ctx, t, client, at(late[i].Addr, 8080))
			connects(ctx, t, client, at(late[2+i].Addr, 8080))
		}
	}
}

func exportOf(ctx context.Context, t *testing.T, h *nettest.Host) []byte {
	t.Helper()
	response, err := h.Client.ExportStore(ctx)
	nettest.Must(t, api.CheckResponse(response, err))
	export, err := io.ReadAll(response.Body)
	nettest.Must(t, err)
	nettest.Must(t, response.Body.Close())
	return export
}

// A fleet moves to a cluster of the operator's: the hosts keep their numbers, and what
// runs on them goes on.
func TestMoveToACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{})
	cluster := nettest.Get[*nettest.Etcd](t)(nettest.StartEtcd(ctx, nettest.EtcdConfig{Underlay: f.Underlay}))
	t.Cleanup(func() { nettest.Must(t, cluster.Close()) })
	first, second := f.Hosts[0], f.Hosts[1]
	createOrg(ctx, t, first, "acme")
	nettest.Must(t, first.CreateApp(ctx, "web", "acme"))
	server := nettest.Get[*nettest.Machine](t)(first.Run(ctx, "web", nettest.Options{}, first.Payload("serve", "-tcp", "8080")...))
	client := nettest.Get[*nettest.Machine](t)(second.Run(ctx, "web", nettest.Options{}, second.Payload("idle")...))
	connects(ctx, t, client, at(server.Addr, 8080))
	hosts := hostIDs(ctx, t, first)

	nettest.Must(t, second.StopAgent(ctx))
	export, err := state.ReadExport(bytes.NewReader(exportOf(ctx, t, first)))
	nettest.Must(t, err)
	nettest.Must(t, first.StopAgent(ctx))
	etcd, err := cluster.Client()
	nettest.Must(t, err)
	defer etcd.Close()
	nettest.Must(t, export.Import(ctx, etcd))
	for _, h := range f.Hosts {
		nettest.Must(t, h.StartAgent(ctx, "--store", strings.Join(cluster.Endpoints(), ","), "--store-ca", cluster.AuthorityPath,
			"--store-cert", cluster.CertificatePath, "--store-key", cluster.KeyPath))
	}
	createOrg(ctx, t, second, "after")
	for _, h := range f.Hosts {
		if got := hostIDs(ctx, t, h); len(got) != 2 || got[first.Name] != hosts[first.Name] || got[second.Name] != hosts[second.Name] {
			t.Errorf("hosts are %v, expected %v as before", got, hosts)
		}
		answer, err := h.Client.GetStoreWithResponse(ctx)
		nettest.Must(t, api.Check(answer, err))
		if s := answer.JSON200; s.Kind != api.StoreStatusKindCluster || len(s.Members) != len(cluster.Members) {
			t.Errorf("the store is %+v, expected the cluster's members", s)
		}
	}
	connects(ctx, t, client, at(server.Addr, 8080))
	if _, err := first.Invite(ctx); err == nil || !strings.Contains(err.Error(), "--store") {
		t.Errorf("a token for a store that it cannot lead to: %v", err)
	}
}

// hostIDs is the numbers of the hosts, by name.
func hostIDs(ctx context.Context, t *testing.T, h *nettest.Host) map[string]string {
	t.Helper()
	answer, err := h.Client.ListHostsWithResponse(ctx, nil)
	nettest.Must(t, api.Check(answer, err))
	ids := map[string]string{}
	for _, h := range answer.JSON200.Hosts {
		ids[h.Name] = h.ID
	}
	return ids
}
