package e2e_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

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
	t.Parallel() // most of it is waiting
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
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
	b := begin(ctx, t, hosts)
	nettest.Must(t, hosts[1].CreateApp(ctx, "alone", "acme"))
	m := nettest.Get[*nettest.Machine](t)(hosts[1].Run(ctx, "alone", nettest.Options{}, hosts[1].Payload(serve...)...))
	for _, m := range cluster.Members {
		nettest.Must(t, m.Kill())
		withdraw(ctx, t, b.each...)()
		nettest.Must(t, m.Start(ctx))
	}
	nettest.Must(t, cluster.Kill())
	for began := time.Now(); time.Since(began) < outage; {
		if got := resolve(ctx, t, m, m.App+".internal"); !slices.Equal(got, []string{m.Addr.String()}) {
			t.Fatalf("%v without a store, %s.internal is %q", time.Since(began), m.App, got)
		}
	}
	nettest.Must(t, cluster.Start(ctx))
	b.end(ctx, t)
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
