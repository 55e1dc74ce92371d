package bench

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/internal/nettest"
)

// Fleets of two sizes in a real store: all that was written can be read, and what one
// host has is the same in both, but for the other hosts themselves.
func TestGrowth(t *testing.T) {
	results, err := run(nettest.Context(t), effort{sizes: []int{3, 60}, fed: []int{200}, compiles: 2}, Config{Only: []string{"growth"}, Progress: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]Result{}
	for _, r := range results {
		values[r.Name] = r
		if r.Value <= 0 || r.Baseline <= 0 {
			t.Errorf("%+v has a figure that is not above 0", r)
		}
	}
	small, large, fed := values["fleet.entries_3"], values["fleet.entries_60"], values["fleet.entries_200"]
	// Two ports of the host, and for each Machine a port, an entry and a quota; for each
	// of its networks an address, a service and a quota; and all their backends.
	want := float64(2 + 3*machinesOfHost + 3*tenantsOfFirst + tenantsOfFirst*machinesOfTenant)
	if small.Value != want || large.Value != want || fed.Value != want {
		t.Errorf("the tables want %v entries among 3 hosts, %v among 60 and %v among 200, expected %v", small.Value, large.Value, fed.Value, want)
	}
	for _, name := range []string{"fleet.state_60", "fleet.compile_60", "fleet.engine_60", "fleet.state_200", "fleet.compile_200", "fleet.engine_200", "fleet.state_a_host", "fleet.engine_a_host"} {
		if _, ok := values[name]; !ok {
			t.Errorf("there is no %s in %v", name, results)
		}
	}
}

// What is fed is what a store would hold, record for record and page for page.
func TestFeedIsAStore(t *testing.T) {
	ctx, dir := nettest.Context(t), t.TempDir()
	s := nettest.Get[*simulation](t)(newSimulation(ctx, dir))
	defer func() { nettest.Must(t, s.embedded.Close()) }()
	const hosts = 21 // the first ones share tenants
	f := nettest.Get[*feed](t)(newFeed(ctx, s, hosts, dir))
	defer func() { nettest.Must(t, f.close()) }()
	nettest.Must(t, s.grow(ctx, hosts))
	read := func(c *clientv3.Client, from string, options ...clientv3.OpOption) (records []string, count int64, more bool) {
		r := nettest.Get[*clientv3.GetResponse](t)(c.Get(ctx, from, options...))
		for _, kv := range r.Kvs {
			records = append(records, string(kv.Key)+" "+string(kv.Value))
		}
		return records, r.Count, r.More
	}
	machines := "/sixpn/v1/index/host-machines/" + hex8(s.first)
	for name, row := range map[string]struct {
		from    string
		options []clientv3.OpOption
		least   int
	}{
		"everything":         {"/", []clientv3.OpOption{clientv3.WithPrefix()}, hosts * machinesOfHost * 4},
		"to the end":         {"/sixpn/v1/o", []clientv3.OpOption{clientv3.WithFromKey()}, hosts},
		"a prefix":           {machines, []clientv3.OpOption{clientv3.WithPrefix()}, machinesOfHost},
		"keys":               {machines, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithKeysOnly()}, machinesOfHost},
		"a page":             {machines, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(7)}, 7},
		"how many":           {machines, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCountOnly()}, 0},
		"one":                {"/sixpn/v1/orgs/org-3", nil, 1},
		"one that is absent": {"/sixpn/v1/orgs/org-", nil, 0},
		"a prefix of none":   {"/sixpn/v1/q", []clientv3.OpOption{clientv3.WithPrefix()}, 0},
	} {
		fed, fedCount, fedMore := read(f.client, row.from, row.options...)
		held, heldCount, heldMore := read(s.embedded.Client(), row.from, row.options...)
		if diff := cmp.Diff(held, fed); diff != "" || fedCount != heldCount || fedMore != heldMore || len(fed) < row.least {
			t.Errorf("%s: %d of %d are fed (%v), %d of %d are held (%v), at least %d are expected (-held +fed):\n%.2000s",
				name, len(fed), fedCount, fedMore, len(held), heldCount, heldMore, row.least, diff)
		}
	}
	if _, err := f.client.Put(ctx, "/a", "b"); err == nil {
		t.Error("a feed took a record")
	}
}
