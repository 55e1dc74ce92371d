package state

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// Region is a place that hosts can be in, called by the code of its airport.
type Region struct {
	Code      string  // three lower-case letters
	Name      string  // the city
	Latitude  float64 // degrees north
	Longitude float64 // degrees east
}

// builtIn is in order of code.
var builtIn = []Region{
	{"ams", "Amsterdam, Netherlands", 52.31, 4.76},
	{"arn", "Stockholm, Sweden", 59.65, 17.92},
	{"atl", "Atlanta, Georgia (US)", 33.64, -84.43},
	{"bcn", "Barcelona, Spain", 41.30, 2.08},
	{"bkk", "Bangkok, Thailand", 13.69, 100.75},
	{"blr", "Bengaluru, India", 13.20, 77.71},
	{"bog", "Bogotá, Colombia", 4.70, -74.15},
	{"bom", "Mumbai, India", 19.09, 72.87},
	{"bos", "Boston, Massachusetts (US)", 42.36, -71.01},
	{"bru", "Brussels, Belgium", 50.90, 4.48},
	{"cdg", "Paris, France", 49.01, 2.55},
	{"cgk", "Jakarta, Indonesia", -6.13, 106.66},
	{"cph", "Copenhagen, Denmark", 55.62, 12.66},
	{"cpt", "Cape Town, South Africa", -33.97, 18.60},
	{"del", "Delhi, India", 28.57, 77.10},
	{"den", "Denver, Colorado (US)", 39.86, -104.67},
	{"dfw", "Dallas, Texas (US)", 32.90, -97.04},
	{"doh", "Doha, Qatar", 25.27, 51.61},
	{"dub", "Dublin, Ireland", 53.42, -6.27},
	{"dxb", "Dubai, United Arab Emirates", 25.25, 55.36},
	{"ewr", "Secaucus, New Jersey (US)", 40.69, -74.17},
	{"eze", "Buenos Aires, Argentina", -34.82, -58.54},
	{"fco", "Rome, Italy", 41.80, 12.25},
	{"fra", "Frankfurt, Germany", 50.03, 8.57},
	{"gdl", "Guadalajara, Mexico", 20.52, -103.31},
	{"gig", "Rio de Janeiro, Brazil", -22.81, -43.25},
	{"gru", "São Paulo, Brazil", -23.43, -46.47},
	{"hel", "Helsinki, Finland", 60.32, 24.96},
	{"hkg", "Hong Kong", 22.31, 113.91},
	{"iad", "Ashburn, Virginia (US)", 38.95, -77.46},
	{"iah", "Houston, Texas (US)", 29.98, -95.34},
	{"icn", "Seoul, South Korea", 37.46, 126.44},
	{"ist", "Istanbul, Türkiye", 41.26, 28.74},
	{"jnb", "Johannesburg, South Africa", -26.14, 28.25},
	{"kix", "Osaka, Japan", 34.43, 135.24},
	{"kul", "Kuala Lumpur, Malaysia", 2.75, 101.71},
	{"lax", "Los Angeles, California (US)", 33.94, -118.41},
	{"lhr", "London, United Kingdom", 51.47, -0.45},
	{"lim", "Lima, Peru", -12.02, -77.11},
	{"lis", "Lisbon, Portugal", 38.77, -9.13},
	{"los", "Lagos, Nigeria", 6.58, 3.32},
	{"maa", "Chennai, India", 12.99, 80.17},
	{"mad", "Madrid, Spain", 40.47, -3.56},
	{"mel", "Melbourne, Australia", -37.67, 144.84},
	{"mia", "Miami, Florida (US)", 25.79, -80.29},
	{"mnl", "Manila, Philippines", 14.51, 121.02},
	{"muc", "Munich, Germany", 48.35, 11.79},
	{"mxp", "Milan, Italy", 45.63, 8.72},
	{"nbo", "Nairobi, Kenya", -1.32, 36.93},
	{"nrt", "Tokyo, Japan", 35.77, 140.39},
	{"ord", "Chicago, Illinois (US)", 41.98, -87.90},
	{"osl", "Oslo, Norway", 60.19, 11.10},
	{"otp", "Bucharest, Romania", 44.57, 26.10},
	{"per", "Perth, Australia", -31.94, 115.97},
	{"phx", "Phoenix, Arizona (US)", 33.43, -112.01},
	{"prg", "Prague, Czechia", 50.10, 14.26},
	{"qro", "Querétaro, Mexico", 20.62, -100.19},
	{"scl", "Santiago, Chile", -33.39, -70.79},
	{"sea", "Seattle, Washington (US)", 47.45, -122.31},
	{"sin", "Singapore", 1.36, 103.99},
	{"sjc", "San Jose, California (US)", 37.36, -121.93},
	{"slc", "Salt Lake City, Utah (US)", 40.79, -111.98},
	{"syd", "Sydney, Australia", -33.95, 151.18},
	{"tlv", "Tel Aviv, Israel", 32.01, 34.89},
	{"tpe", "Taipei, Taiwan", 25.08, 121.23},
	{"vie", "Vienna, Austria", 48.11, 16.57},
	{"waw", "Warsaw, Poland", 52.17, 20.97},
	{"yul", "Montreal, Canada", 45.47, -73.74},
	{"yvr", "Vancouver, Canada", 49.19, -123.18},
	{"yyz", "Toronto, Canada", 43.68, -79.63},
	{"zrh", "Zurich, Switzerland", 47.46, 8.55},
}

// regions is those that are built in and those of the operator, in order of code.
var regions atomic.Pointer[[]Region]

func init() { regions.Store(&builtIn) }

// Regions is all regions, by code.
func Regions() []Region { return slices.Clone(*regions.Load()) }

// LookupRegion finds a region by its code.
func LookupRegion(code string) (Region, bool) {
	all := *regions.Load()
	i, ok := findRegion(all, code)
	if !ok {
		return Region{}, false
	}
	return all[i], true
}

func findRegion(all []Region, code string) (int, bool) {
	return slices.BinarySearchFunc(all, code, func(r Region, code string) int { return cmp.Compare(r.Code, code) })
}

var regionCode = regexp.MustCompile(`^[a-z]{3}$`)

// SetRegions adds the operator's regions to those that are built in, or puts them in
// the place of those with the same code, whose name an empty one keeps. It is called
// once, before anything that may name a region is read; called again, only the last
// call counts. On an error, of kind Invalid, the regions stay as they were; field is a
// path from "regions" on.
func SetRegions(extra []Region) error {
	all := slices.Clone(builtIn)
	for i, r := range extra {
		field := fmt.Sprintf("regions[%d]", i)
		if !regionCode.MatchString(r.Code) || slices.Contains(reservedApps, r.Code) {
			return refuse(Invalid, field+".code", "%.20q is not a code for a region: expected three lower-case letters without a meaning of their own in .internal names, such as %q", r.Code, "fra")
		}
		if slices.ContainsFunc(extra[:i], func(other Region) bool { return other.Code == r.Code }) {
			return refuse(Invalid, field+".code", "the region %q is given twice: leave one of them out", r.Code)
		}
		at, known := findRegion(all, r.Code)
		if known && r.Name == "" {
			r.Name = all[at].Name
		}
		if r.Name == "" || len(r.Name) > maxRegionName || !utf8.ValidString(r.Name) || strings.ContainsFunc(r.Name, unicode.IsControl) {
			return refuse(Invalid, field+".name", "%.40q is not the name of a place: expected 1 to %d bytes of printable text", r.Name, maxRegionName)
		}
		if !(math.Abs(r.Latitude) <= 90) { // also NaN
			return refuse(Invalid, field+".latitude", "%v is out of range: expected -90 to 90 degrees north", r.Latitude)
		}
		if !(math.Abs(r.Longitude) <= 180) {
			return refuse(Invalid, field+".longitude", "%v is out of range: expected -180 to 180 degrees east", r.Longitude)
		}
		if known {
			all[at] = r
		} else {
			all = slices.Insert(all, at, r)
		}
	}
	regions.Store(&all)
	return nil
}

const maxRegionName = 100

// earthRadius is the mean one, in kilometres.
const earthRadius = 6371.0

// Distance is the length of the great circle between two regions, in kilometres.
func Distance(a, b Region) float64 {
	latitudeA, latitudeB := radians(a.Latitude), radians(b.Latitude)
	// The haversine formula keeps its precision for places near each other.
	sinLatitude := math.Sin((latitudeB - latitudeA) / 2)
	sinLongitude := math.Sin(radians(b.Longitude-a.Longitude) / 2)
	h := sinLatitude*sinLatitude + math.Cos(latitudeA)*math.Cos(latitudeB)*sinLongitude*sinLongitude
	return 2 * earthRadius * math.Asin(math.Sqrt(min(1, h)))
}

func radians(degrees float64) float64 { return degrees * math.Pi / 180 }
