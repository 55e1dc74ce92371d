package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// ask asks for a migration, of the first host, where the store is.
func (r *regions) ask(ctx context.Context, t *testing.T, m *nettest.Machine, to *nettest.Host) {
	t.Helper()
	answer, err := r.fleet.Hosts[0].Client.MigrateMachineWithResponse(ctx, m.App, m.ID, &api.MigrateMachineParams{}, api.MigrateRequest{HostName: to.Name})
	nettest.Must(t, api.Check(answer, err))
}

// arrives waits until a Machine is started on a host.
func (r *regions) arrives(ctx context.Context, t *testing.T, m *nettest.Machine, to *nettest.Host) (moved *api.Machine) {
	t.Helper()
	nettest.Must(t, nettest.Eventually(ctx, "the Machine is started on the other host", func(ctx context.Context) error {
		answer, err := r.fleet.Hosts[0].Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		moved = answer.JSON200
		if moved.HostName != to.Name || moved.State != "started" || moved.Migration != nil {
			return fmt.Errorf("it is %s on %s, its migration %+v", moved.State, moved.HostName, moved.Migration)
		}
		return nil
	}))
	return moved
}

// An agent dies in the middle of a migration, on either side; the store's host too.
// Whoever comes back goes on with it, and the Machine runs once.
func (r *regions) migrateThroughKills(ctx context.Context, t *testing.T) {
	m := r.servers[0]
	at := 1 // where it is
	for _, row := range []struct {
		name   string
		before *nettest.Host // killed before it is asked for
		after  *nettest.Host // killed at once after
	}{
		{"the host that it leaves is down", r.fleet.Hosts[1], nil},  // from 1 to 0
		{"the host that it goes to is down", r.fleet.Hosts[1], nil}, // from 0 to 1
		{"the host that it goes to, which has the store, dies", nil, r.fleet.Hosts[0]},
		{"the host that it leaves, which has the store, dies", nil, r.fleet.Hosts[0]},
	} {
		to := r.fleet.Hosts[1-at]
		if row.before != nil {
			nettest.Must(t, row.before.KillAgent())
		}
		r.ask(ctx, t, m, to)
		if row.after != nil {
			nettest.Must(t, row.after.KillAgent())
		}
		for _, h := range []*nettest.Host{row.before, row.after} {
			if h != nil {
				nettest.Must(t, h.StartAgent(ctx))
			}
		}
		moved := r.arrives(ctx, t, m, to)
		at = 1 - at
		for i, h := range r.fleet.Hosts {
			nettest.Must(t, nettest.Eventually(ctx, "only its host has its device", func(context.Context) error {
				devices, err := h.Devices()
				if err == nil && slices.Contains(devices, "m"+m.ID) != (i == at) {
					err = fmt.Errorf("%s: host %s has the devices %q", row.name, h.Name, devices)
				}
				return err
			}))
		}
		for client := range r.clients {
			connects(ctx, t, r.clients[client], netip.AddrPortFrom(netip.MustParseAddr(moved.PrivateIP), 8080))
		}
	}
}

// follows demands that a Machine's name leads both clients to where it is.
func (r *regions) follows(ctx context.Context, t *testing.T, m *api.Machine) {
	t.Helper()
	for client := range r.clients {
		nettest.Must(t, nettest.Eventually(ctx, "its name leads to where it is", func(ctx context.Context) error {
			names, err := nettest.Probe[payload.Lookup](ctx, r.clients[client], "lookup", "AAAA", m.ID+".vm.web.internal")
			if err == nil && fmt.Sprint(names.Answers) != fmt.Sprint([]string{m.PrivateIP}) {
				err = fmt.Errorf("client %d: the name leads to %v, expected %s", client, names.Answers, m.PrivateIP)
			}
			return err
		}))
		connects(ctx, t, r.clients[client], netip.AddrPortFrom(netip.MustParseAddr(m.PrivateIP), 8080))
	}
}

// The other host cannot start a Machine, as something is in its supervisor's place: it is
// where it was, with its name and behind its VIP, and says why.
func (r *regions) migrateInVain(ctx context.Context, t *testing.T) {
	from, to, m := r.fleet.Hosts[0], r.fleet.Hosts[1], r.servers[0]
	taken := filepath.Join(to.RunDir(), "machines", to.Name, m.ID+".sock")
	nettest.Must(t, os.MkdirAll(filepath.Join(taken, "full"), 0o755))
	r.ask(ctx, t, m, to)
	var back *api.Machine
	nettest.Must(t, nettest.Eventually(ctx, "the Machine is started where it was", func(ctx context.Context) error {
		answer, err := from.Client.GetMachineWithResponse(ctx, m.App, m.ID)
		if err := api.Check(answer, err); err != nil {
			return err
		}
		back = answer.JSON200
		if back.HostName != from.Name || back.State != "started" || back.Migration == nil || back.Migration.Error == "" {
			return fmt.Errorf("it is %s on %s, its migration %+v", back.State, back.HostName, back.Migration)
		}
		return nil
	}))
	if !strings.Contains(back.Migration.Error, taken) || back.Region != "iad" || back.Name != m.Name {
		t.Errorf("after a migration in vain it is %+v, %+v", back, back.Migration)
	}
	r.follows(ctx, t, back)
	r.reach(ctx, t, 0, m)
	m.Addr = netip.MustParseAddr(back.PrivateIP)
	nettest.Must(t, os.RemoveAll(taken))
}

// A Machine goes to the other host, and its name and the VIP with it.
func (r *regions) migrate(ctx context.Context, t *testing.T) {
	to, m := r.fleet.Hosts[1], r.servers[0]
	r.ask(ctx, t, m, to)
	moved := r.arrives(ctx, t, m, to)
	if moved.PrivateIP == m.Addr.String() || moved.Region != "fra" || moved.Name != m.Name {
		t.Errorf("after the migration it is %+v", moved)
	}
	r.follows(ctx, t, moved)
	// Nobody is left in iad: its client goes to fra.
	nettest.Must(t, nettest.Eventually(ctx, "the client in iad reaches one in fra", func(ctx context.Context) error {
		conn, _, err := r.connect(ctx, 0)
		if err == nil {
			conn.Close()
		}
		return err
	}))
}
