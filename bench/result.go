package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// Result is one measurement beside its baseline, both medians over the rounds of
// one run. Names are kept for good.
type Result struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Baseline float64 `json:"baseline"`
	// Ratio is the median of the rounds' own ratios, value over baseline.
	Ratio float64 `json:"ratio"`
	// Spread is the width of the middle half of those ratios.
	Spread float64 `json:"spread"`
	// Low and High are where the ratio is with a confidence of 95 %, as far as rounds differ
	// by chance; both 0 where there are too few to say so, or where it is not of rounds.
	Low  float64 `json:"ratio_low,omitempty"`
	High float64 `json:"ratio_high,omitempty"`
	// Against names the baseline.
	Against string `json:"against"`
	Rounds  int    `json:"rounds"`
	// Resolution is by how much a value may be too large, because it was looked for and
	// not told; in Unit, 0 where it does not apply.
	Resolution float64 `json:"resolution,omitempty"`

	values, baselines []float64
}

// newResult summarises rounds: values[i] and baselines[i] were measured side by side.
func newResult(name, unit, against string, values, baselines []float64) Result {
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / baselines[i]
	}
	low, high := medianInterval(ratios)
	return Result{
		Name: name, Unit: unit, Against: against, Rounds: len(values), Low: low, High: high,
		Value: quantile(values, 0.5), Baseline: quantile(baselines, 0.5), Ratio: quantile(ratios, 0.5),
		Spread: quantile(ratios, 0.75) - quantile(ratios, 0.25),
		values: values, baselines: baselines,
	}
}

// medianInterval has the median of what samples are taken of between the two with a
// confidence of 95 %: so many of n fair coins show heads. It asks nothing of how samples
// are distributed. Of fewer than six not even the whole range is that sure.
func medianInterval(samples []float64) (low, high float64) {
	n := len(samples)
	if n < 6 {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	// Leave out as many at either end as still have less than 2.5 % together.
	left, term, below := 0, math.Pow(0.5, float64(n)), 0.0
	for below += term; below <= 0.025; below += term {
		left++
		term *= float64(n-left+1) / float64(left)
	}
	return sorted[left-1], sorted[n-left]
}

// quantile interpolates between the two nearest samples.
func quantile(samples []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	position := q * float64(len(sorted)-1)
	low := int(position)
	if low == len(sorted)-1 {
		return sorted[low]
	}
	return sorted[low] + (position-float64(low))*(sorted[low+1]-sorted[low])
}

// WriteJSON writes one object a line.
func WriteJSON(w io.Writer, results []Result) error {
	encoder := json.NewEncoder(w)
	for _, r := range results {
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// WriteTable writes a table for people.
func WriteTable(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tVALUE\tUNIT\tBASELINE\tRATIO\tSPREAD\t95 %\tROUNDS\tAGAINST")
	for _, r := range results {
		against := r.Against
		if r.Resolution > 0 {
			against += fmt.Sprintf(" (seen to %.1f %s)", r.Resolution, r.Unit)
		}
		sure := ""
		if r.High > 0 {
			sure = fmt.Sprintf("%.2f to %.2f", r.Low, r.High)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.2f\t±%.2f\t%s\t%d\t%s\n", r.Name, number(r.Value), r.Unit, number(r.Baseline),
			r.Ratio, r.Spread/2, sure, r.Rounds, against)
	}
	return table.Flush()
}

func number(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// WriteBenchmarks writes every round as a line of the Go benchmark format, which
// benchstat reads: `benchstat -col /side` puts value and baseline side by side.
func WriteBenchmarks(w io.Writer, results []Result) error {
	if _, err := fmt.Fprintf(w, "goos: linux\npkg: github.com/sixpn/sixpn/bench\n"); err != nil {
		return err
	}
	for _, r := range results {
		for side, samples := range map[string][]float64{"sixpn": r.values, "baseline": r.baselines} {
			for _, v := range samples {
				if _, err := fmt.Fprintf(w, "Benchmark/name=%s/side=%s 1 %g %s\n", r.Name, side, v, r.Unit); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
