package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		q, want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{3, 1}, 0.5, 2},
		{[]float64{5, 1, 3}, 0.5, 3},
		{[]float64{5, 1, 3}, 1, 5},
		{[]float64{5, 1, 3}, 0, 1},
		{[]float64{4, 1, 2, 3, 5}, 0.25, 2},
	} {
		if got := quantile(c.samples, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.samples, c.q, got, c.want)
		}
	}
}

// The probabilities are those of coins: of 6 the outermost pair has 1 - 2/64, of 11 the
// second one 1 - 2*12/2048, of 41 the fourteenth 1 - 2*0.0138.
func TestMedianInterval(t *testing.T) {
	for _, c := range []struct{ n, low, high int }{{5, 0, 0}, {6, 1, 6}, {8, 1, 8}, {9, 2, 8}, {11, 2, 10}, {41, 14, 28}, {101, 41, 61}} {
		var samples []float64
		for i := c.n; i > 0; i-- {
			samples = append(samples, float64(i))
		}
		if low, high := medianInterval(samples); low != float64(c.low) || high != float64(c.high) {
			t.Errorf("of %d samples the median is between the %vth and the %vth, expected %d and %d", c.n, low, high, c.low, c.high)
		}
	}
}

// The ratio is of rounds, not of medians: drift between rounds cancels out.
func TestRatioIsPaired(t *testing.T) {
	r := newResult("x", "u", "b", []float64{2, 20, 200}, []float64{1, 10, 100})
	if r.Ratio != 2 || r.Spread != 0 || r.Value != 20 || r.Baseline != 10 || r.Rounds != 3 {
		t.Errorf("got %+v", r)
	}
}

// A whole run, as small as it can be: every world forwards, every name is there,
// and all three ways of writing the results hold.
func TestRun(t *testing.T) {
	e := effort{packetRounds: 2, packetRepeats: 1000, liveRounds: 2, liveFrames: 6400, tcpRounds: 2, tcpEach: 20 * time.Millisecond}
	results, err := run(context.Background(), e, Config{Only: []string{"packet", "live", "tcp"}, Progress: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`packet.forward packet.drop flycast.established_1 flycast.established_100k flycast.new
		pps.forward pps.flycast pps.forward_isolated pps.flycast_isolated pps.uplink_xdp
		tcp.throughput tcp.rr tcp.throughput_bridge tcp.rr_bridge flycast.tcp.throughput flycast.tcp.rr`)
	if len(results) != len(want) {
		t.Fatalf("%d results, want %d", len(results), len(want))
	}
	for i, r := range results {
		if r.Name != want[i] || r.Value <= 0 || r.Baseline <= 0 || r.Ratio <= 0 || r.Rounds != 2 {
			t.Errorf("result %d is %+v, want %s with figures above 0", i, r, want[i])
		}
	}

	var out bytes.Buffer
	if err := WriteJSON(&out, results); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(out.String(), "\n")
	var object map[string]any
	if err := json.Unmarshal([]byte(first), &object); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "value", "unit", "baseline", "ratio"} {
		if _, ok := object[key]; !ok {
			t.Errorf("%s has no %q", first, key)
		}
	}
	out.Reset()
	if err := WriteBenchmarks(&out, results); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^Benchmark/name=\S+/side=(sixpn|baseline) 1 \S+ \S+$`)
	if got := len(line.FindAllString(out.String(), -1)); got != 2*2*len(results) {
		t.Errorf("%d benchmark lines, want %d:\n%s", got, 2*2*len(results), out.String())
	}
	out.Reset()
	if err := WriteTable(&out, results); err != nil || strings.Count(out.String(), "\n") != len(results)+1 {
		t.Errorf("table (%v):\n%s", err, out.String())
	}
}

func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, Config{Quick: true}); err == nil {
		t.Error("a run with a context that has ended gave results")
	}
}
