package bench

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest"
)

// Two real hosts, a plain tunnel between them, and three that tell each other of
// changes: every path carries traffic, and every name of a result is there.
func TestMeshAndPropagation(t *testing.T) {
	e := effort{meshRounds: 2, meshEach: 20 * time.Millisecond, changes: 4}
	results, err := run(nettest.Context(t), e, Config{Only: []string{"mesh", "propagation"}, Progress: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := kernelHasWireGuard()
	if err != nil {
		t.Fatal(err)
	}
	want := "mesh.throughput mesh.rr "
	if kernel {
		want += "mesh.throughput_userspace mesh.rr_userspace "
	} else {
		want += "mesh.cpu "
	}
	want += `control.propagation_p50 control.propagation_p99 control.propagation_name_p50 control.propagation_name_p99
		control.propagation_table_p50 control.propagation_table_p99`
	names := strings.Fields(want)
	if len(results) != len(names) {
		t.Fatalf("%d results, want %d", len(results), len(names))
	}
	for i, r := range results {
		propagation := strings.HasPrefix(r.Name, "control.")
		if r.Name != names[i] || r.Value <= 0 || r.Baseline <= 0 || r.Ratio <= 0 || r.Resolution > 0 != propagation {
			t.Errorf("result %d is %+v, want %s with figures above 0", i, r, names[i])
		}
	}
}

// A change that is seen at different times has both; the later one counts.
func TestPropagationResults(t *testing.T) {
	ms := time.Millisecond
	results := propagationResults([]propagated{
		{answered: 5 * ms, name: 7 * ms, table: 9 * ms, looks: ms},
		{answered: 5 * ms, name: 11 * ms, table: 6 * ms, looks: ms},
		{answered: 5 * ms, name: 20 * ms, table: 20 * ms, looks: ms},
	})
	want := map[string]float64{"control.propagation_p50": 11, "control.propagation_name_p50": 11, "control.propagation_table_p50": 9}
	for _, r := range results {
		if expected, ok := want[r.Name]; ok && (r.Value != expected || r.Baseline != 5 || r.Resolution != 1) {
			t.Errorf("%+v, want %v beside 5", r, expected)
		}
	}
}

// What is measured stops between two steps.
func TestMeshStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, subject := range []string{"mesh", "propagation"} {
		if _, err := Run(ctx, Config{Quick: true, Only: []string{subject}}); err == nil {
			t.Errorf("%s gave results although its context had ended", subject)
		}
	}
}
