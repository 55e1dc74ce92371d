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

// TestSetRegions is not parallel: the regions are one table for the whole process.
func TestSetRegions(t *testing.T) {
	t.Cleanup(func() { must(t, state.SetRegions(nil)) })
	before := state.Regions()
	for name, row := range map[string]struct {
		field string
		extra []state.Region
	}{
		"code: none":            {"regions[0].code", []state.Region{{Name: "Home"}}},
		"code: capitals":        {"regions[0].code", []state.Region{{Code: "HOM", Name: "Home"}}},
		"code: long":            {"regions[0].code", []state.Region{{Code: "home", Name: "Home"}}},
		"code: of a name":       {"regions[0].code", []state.Region{{Code: "vms", Name: "Home"}}},
		"code: twice":           {"regions[1].code", []state.Region{{Code: "hom", Name: "A"}, {Code: "hom", Name: "B"}}},
		"name: none":            {"regions[0].name", []state.Region{{Code: "hom"}}},
		"name: control":         {"regions[0].name", []state.Region{{Code: "hom", Name: "a\nb"}}},
		"name: long":            {"regions[0].name", []state.Region{{Code: "hom", Name: strings.Repeat("a", 101)}}},
		"latitude: too far":     {"regions[0].latitude", []state.Region{{Code: "hom", Name: "Home", Latitude: 90.01}}},
		"latitude: no number":   {"regions[0].latitude", []state.Region{{Code: "hom", Name: "Home", Latitude: math.NaN()}}},
		"longitude: too far":    {"regions[0].longitude", []state.Region{{Code: "hom", Name: "Home", Longitude: -180.01}}},
		"longitude: no number":  {"regions[0].longitude", []state.Region{{Code: "hom", Name: "Home", Longitude: math.Inf(1)}}},
		"the second of several": {"regions[1].name", []state.Region{{Code: "hom", Name: "Home"}, {Code: "lab"}}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, state.SetRegions(row.extra), state.Invalid, row.field)
			if !slices.Equal(state.Regions(), before) {
				t.Error("a refusal changed the regions")
			}
		})
	}
	must(t, state.SetRegions([]state.Region{
		{Code: "zzz", Name: "Last", Latitude: -90, Longitude: 180},
		{Code: "aaa", Name: "First"},
		{Code: "fra", Latitude: 50, Longitude: 8},
		{Code: "iad", Name: "Home", Latitude: 1, Longitude: 2},
	}))
	if err := state.ValidateRegion("zzz"); err != nil {
		t.Error(err)
	}
	fra, _ := state.LookupRegion("fra")
	iad, _ := state.LookupRegion("iad")
	if fra != (state.Region{Code: "fra", Name: "Frankfurt, Germany", Latitude: 50, Longitude: 8}) ||
		iad != (state.Region{Code: "iad", Name: "Home", Latitude: 1, Longitude: 2}) {
		t.Errorf("the regions that were replaced are %+v and %+v", fra, iad)
	}
	all := state.Regions()
	if len(all) != len(before)+2 || all[0].Code != "aaa" || all[len(all)-1].Code != "zzz" ||
		!slices.IsSortedFunc(all, func(a, b state.Region) int { return strings.Compare(a.Code, b.Code) }) {
		t.Errorf("the regions are now %+v", all)
	}
	must(t, state.SetRegions(nil))
	if !slices.Equal(state.Regions(), before) {
		t.Error("the regions that are built in were changed")
	}
}
