package state_test

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

const ms = time.Millisecond

func TestDistancesRank(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		here     string
		measured map[string]time.Duration
		regions  []string
		want     []string // nearest first
	}{
		{"by the great circle", "ams", nil, []string{"nrt", "iad", "fra", "ams"}, []string{"ams", "fra", "iad", "nrt"}},
		{"a measured detour", "ams", map[string]time.Duration{"fra": 300 * ms}, []string{"nrt", "iad", "fra", "ams"}, []string{"ams", "iad", "nrt", "fra"}},
		{"a measured short cut", "ams", map[string]time.Duration{"nrt": 2 * ms}, []string{"nrt", "iad", "fra", "ams"}, []string{"ams", "nrt", "fra", "iad"}},
		{"all measured", "ams", map[string]time.Duration{"nrt": 2 * ms, "iad": 3 * ms, "fra": 4 * ms}, []string{"iad", "fra", "nrt"}, []string{"nrt", "iad", "fra"}},
		{"the own region although hosts there are slow", "ams", map[string]time.Duration{"ams": 500 * ms, "fra": ms}, []string{"fra", "ams"}, []string{"ams", "fra"}},
		{"less than a millisecond apart, by the great circle", "ams", map[string]time.Duration{"nrt": 200 * time.Microsecond, "fra": 400 * time.Microsecond}, []string{"nrt", "fra"}, []string{"fra", "nrt"}},
		{"a region that nobody knows", "ams", nil, []string{"xxx", "syd"}, []string{"syd", "xxx"}},
		{"one that nobody knows, measured", "ams", map[string]time.Duration{"xxx": 2 * ms}, []string{"syd", "xxx"}, []string{"xxx", "syd"}},
		{"a place that nobody knows", "xxx", map[string]time.Duration{"syd": 2 * ms}, []string{"ams", "syd", "xxx"}, []string{"xxx", "syd", "ams"}},
	} {
		d := state.NewDistances(row.here, row.measured)
		got := slices.SortedFunc(slices.Values(row.regions), func(a, b string) int { return cmp.Compare(d.Rank(a), d.Rank(b)) })
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: nearest first is %q, want %q", row.name, got, row.want)
		}
		if d.Rank(row.here) != 0 {
			t.Errorf("%s: the place's own region has rank %d, want 0", row.name, d.Rank(row.here))
		}
	}
	if d := state.NewDistances("ams", nil); d.Rank("xxx") != d.Rank("yyy") {
		t.Error("two regions that nobody knows have different ranks")
	}
}

func TestDistancesRoundTrip(t *testing.T) {
	t.Parallel()
	d := state.NewDistances("ams", map[string]time.Duration{"fra": 9 * ms})
	if got := d.RoundTrip("fra"); got != 9*ms {
		t.Errorf("a measured round trip is %v, want 9ms", got)
	}
	// 6,200 km and 100 km a millisecond.
	if got := d.RoundTrip("iad"); got < 61*ms || got > 63*ms {
		t.Errorf("the round trip to iad is %v, want about 62ms", got)
	}
	if got := d.RoundTrip("xxx"); got != math.MaxInt64 {
		t.Errorf("the round trip to a region that nobody knows is %v, want the largest", got)
	}
	if _, ok := d.Measured("iad"); ok {
		t.Error("iad counts as measured")
	}
}
