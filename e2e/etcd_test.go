package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// lease is a host's own, by default, and late what others may need beyond it.
const (
	lease = 10 * time.Second
	late  = 5 * time.Second
)

// TestOperatorsStore: hosts with the state in an etcd cluster that somebody else runs.
// Each member in turn is killed and nothing acknowledged is lost; while none is there,
// hosts go on answering.
func TestOperatorsStore(t *testing.T) {
	ctx := nettest.Context(t)
	u := nettest.Get[*nettest.Underlay](t)(nettest.NewUnderlay(0))
	t.Cleanup(func() { nettest.Must(t, u.Close()) })
	cluster := nettest.Get[*nettest.Etcd](t)(nettest.StartEtcd(ctx, nettest.EtcdConfig{Underlay: u}))
	t.Cleanup(func() { nettest.Must(t, cluster.Close()) })
	var hosts []*nettest.Host
	for _, region := range []string{"iad", "fra"} {
		h := nettest.Get[*nettest.Host](t)(nettest.NewHost(nettest.Config{Underlay: u}))
		t.Cleanup(func() { nettest.Must(t, h.Close()) })
		hosts = append(hosts, h)
		nettest.Must(t, h.StartAgent(ctx, "--host-name", h.Name, "--region", region, "--underlay", h.Uplink.V4.String(),
			"--store", strings.Join(cluster.Endpoints(), ","), "--store-ca", cluster.AuthorityPath,
			"--store-cert", cluster.CertificatePath, "--store-key", cluster.KeyPath))
	}
	nettest.Must(t, hosts[0].CreateOrg(ctx, "acme"))
	var acknowledged []string
	tried := 0
	write := func() {
		t.Helper()
		nettest.Must(t, nettest.Eventually(ctx, "a write is acknowledged", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			// Another name each time: one that was not acknowledged may be there.
			app := fmt.Sprint("app-", tried)
			tried++
			err := hosts[0].CreateApp(ctx, app, "acme")
			if err == nil {
				acknowledged = append(acknowledged, app)
			}
			return err
		}))
	}
	write()
	for _, m := range cluster.Members {
		nettest.Must(t, m.Kill())
		write()
		nettest.Must(t, m.Start(ctx))
	}
	m := nettest.Get[*nettest.Machine](t)(hosts[1].Run(ctx, acknowledged[0], nettest.Options{}, hosts[1].Payload(serve...)...))
	nettest.Must(t, cluster.Kill())
	for began := time.Now(); time.Since(began) < lease+late; {
		if got := resolve(ctx, t, m, m.App+".internal"); !slices.Equal(got, []string{m.Addr.String()}) {
			t.Fatalf("%v without a store, %s.internal is %q", time.Since(began), m.App, got)
		}
	}
	nettest.Must(t, cluster.Start(ctx))
	write()
	for _, h := range hosts {
		nettest.Must(t, nettest.Eventually(ctx, "a host knows all that was written", func(ctx context.Context) error {
			for _, app := range acknowledged {
				answer, err := h.Client.GetAppWithResponse(ctx, app)
				if err := api.Check(answer, err); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	// A store that has lost everything is not taken for a fleet that has nothing.
	nettest.Must(t, cluster.Wipe())
	nettest.Must(t, cluster.Start(ctx))
	for began := time.Now(); time.Since(began) < lease; {
		if got := resolve(ctx, t, m, m.App+".internal"); !slices.Equal(got, []string{m.Addr.String()}) {
			t.Fatalf("%v after the store was wiped, %s.internal is %q", time.Since(began), m.App, got)
		}
	}
	for _, h := range hosts {
		if err := h.CreateApp(ctx, "too-late", "acme"); err == nil {
			t.Error("a store that was wiped takes an order")
		}
	}
}

// resolve is what dig inside a Machine finds.
func resolve(ctx context.Context, t *testing.T, asker *nettest.Machine, name string) []string {
	t.Helper()
	return strings.Fields(nettest.Get[string](t)(asker.Exec(ctx, "dig", "+short", "AAAA", name, "@fdaa::3")))
}
