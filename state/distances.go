package state

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// kilometresPerMillisecond is the way that a round trip takes in a millisecond at the
// speed of light in glass, 200 km/ms one way. Real paths are longer, by half and more,
// so a region that was never measured seems nearer than it is, never farther: it is
// tried, and with a host there it is soon measured.
const kilometresPerMillisecond = 100

// Distances is how far regions are from one place: the round trip to hosts there where
// it was measured, else what the great circle makes likely. It never changes.
type Distances struct {
	here     string
	measured map[string]time.Duration
	ranks    map[string]int
}

// NewDistances makes them for a place in the region here. measured is by region and may
// be nil; the place's own region is the nearest whatever it says.
func NewDistances(here string, measured map[string]time.Duration) *Distances {
	d := &Distances{here: here, measured: maps.Clone(measured), ranks: map[string]int{}}
	codes := []string{here}
	for code := range measured {
		codes = append(codes, code)
	}
	for _, r := range Regions() {
		codes = append(codes, r.Code)
	}
	slices.SortFunc(codes, d.compare)
	rank := 0
	for i, code := range codes {
		if i > 0 && d.compare(codes[i-1], code) != 0 {
			rank++
		}
		d.ranks[code] = rank
	}
	return d
}

// compare takes times first. They count in whole milliseconds: what is less is noise of
// the hosts, and says less than where they are.
func (d *Distances) compare(a, b string) int {
	return cmp.Or(
		-compareBool(a == d.here, b == d.here),
		cmp.Compare(d.RoundTrip(a).Round(time.Millisecond), d.RoundTrip(b).Round(time.Millisecond)),
		cmp.Compare(d.Kilometres(a), d.Kilometres(b)),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Rank orders regions: the place's own is 0, a nearer one has a lower rank, one that is
// as near has the same. A region of which nothing is known is farther than all others.
func (d *Distances) Rank(region string) int {
	if rank, ok := d.ranks[region]; ok {
		return rank
	}
	return math.MaxInt
}

// Measured is the round trip to hosts of a region, if it was measured.
func (d *Distances) Measured(region string) (time.Duration, bool) {
	measured, ok := d.measured[region]
	return measured, ok
}

// RoundTrip is Measured, or else what the great circle allows at best; the largest
// duration for a region of which nothing is known.
func (d *Distances) RoundTrip(region string) time.Duration {
	if measured, ok := d.measured[region]; ok {
		return measured
	}
	kilometres := d.Kilometres(region)
	if math.IsInf(kilometres, 1) {
		return math.MaxInt64
	}
	return time.Duration(kilometres / kilometresPerMillisecond * float64(time.Millisecond))
}

// Kilometres is the length of the great circle to a region, positive infinity if either
// end is not known.
func (d *Distances) Kilometres(region string) float64 {
	if region == d.here {
		return 0
	}
	from, known := LookupRegion(d.here)
	to, ok := LookupRegion(region)
	if !known || !ok {
		return math.Inf(1)
	}
	return Distance(from, to)
}
