package state_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/state"
)

func TestRegionsTable(t *testing.T) {
	all := state.Regions()
	if !slices.IsSortedFunc(all, func(a, b state.Region) int { return strings.Compare(a.Code, b.Code) }) {
		t.Error("the table is not in order of code, so that look-ups miss")
	}
	for _, r := range all {
		if len(r.Code) != 3 || r.Code != strings.ToLower(r.Code) || r.Name == "" || math.Abs(r.Latitude) > 90 || math.Abs(r.Longitude) > 180 {
			t.Errorf("bad row %+v", r)
		}
		if got, ok := state.LookupRegion(r.Code); !ok || got != r {
			t.Errorf("look-up of %s gives %+v, %v", r.Code, got, ok)
		}
	}
	if _, ok := state.LookupRegion("xxx"); ok {
		t.Error("xxx was found")
	}
}

// TestDistance has published great-circle distances between the airports.
func TestDistance(t *testing.T) {
	for _, row := range []struct {
		from, to   string
		kilometres float64
	}{
		{"fra", "fra", 0},
		{"fra", "ams", 366},
		{"lhr", "iad", 5918},
		{"fra", "iad", 6551},
		{"sin", "syd", 6288},
		{"nrt", "lax", 8773}, // over the date line
		{"gru", "jnb", 7446},
		{"syd", "scl", 11346},
	} {
		from, _ := state.LookupRegion(row.from)
		to, _ := state.LookupRegion(row.to)
		got, back := state.Distance(from, to), state.Distance(to, from)
		if math.Abs(got-row.kilometres) > 0.01*row.kilometres+1e-9 {
			t.Errorf("%s to %s is %.0f km, want %.0f", row.from, row.to, got, row.kilometres)
		}
		if got != back {
			t.Errorf("%s to %s is %f km, back %f", row.from, row.to, got, back)
		}
	}
}
