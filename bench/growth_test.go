package bench

import (
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

// Fleets of two sizes in a real store: all that was written can be read, and what one
// host has is the same in both, but for the other hosts themselves.
func TestGrowth(t *testing.T) {
	results, err := run(nettest.Context(t), effort{sizes: []int{3, 60}, compiles: 2}, Config{Only: []string{"growth"}, Progress: func(string) {}})
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
	small, large := values["fleet.entries_3"], values["fleet.entries_60"]
	// Two ports of the host, and for each Machine a port, an entry and a quota; for each
	// of its networks an address, a service and a quota; and all their backends.
	want := float64(2 + 3*machinesOfHost + 3*tenantsOfFirst + tenantsOfFirst*machinesOfTenant)
	if small.Value != want || large.Value != want {
		t.Errorf("the tables want %v entries among 3 hosts and %v among 60, expected %v", small.Value, large.Value, want)
	}
	for _, name := range []string{"fleet.state_60", "fleet.compile_60", "fleet.engine_60", "fleet.state_a_host", "fleet.engine_a_host"} {
		if _, ok := values[name]; !ok {
			t.Errorf("there is no %s in %v", name, results)
		}
	}
}
