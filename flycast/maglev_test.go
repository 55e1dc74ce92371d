package flycast_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/maps"
)

func drawBackends(t *rapid.T, least, most int) []maps.Backend {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) maps.Backend {
		return maps.Backend{
			Network: sixpn.Network(rapid.Uint32Range(1, 3).Draw(t, "network")),
			Host:    sixpn.Host(rapid.Uint32Range(3, 6).Draw(t, "host")),
			Machine: sixpn.Machine(rapid.Uint32Range(1, 5000).Draw(t, "machine")),
			Port:    rapid.SampledFrom([]uint16{80, 8080}).Draw(t, "port"),
		}
	}), least, most, func(b maps.Backend) maps.Backend { return b }).Draw(t, "backends")
}

// shares counts the positions of each backend.
func shares(backends []maps.Backend) map[maps.Backend]int {
	counts := map[maps.Backend]int{}
	for _, position := range flycast.Maglev(backends) {
		counts[backends[position]]++
	}
	return counts
}

func TestRegionLength(t *testing.T) {
	t.Parallel()
	for backends, length := range map[int]uint32{1: 251, 2: 251, 3: 509, 5: 509, 6: 1021, 100: 16381, 655: 65537, 5000: 65537} {
		if got := flycast.RegionLength(backends); got != length {
			t.Errorf("the region of %d backends has %d positions, want %d", backends, got, length)
		}
	}
}

func TestMaglevOfNone(t *testing.T) {
	t.Parallel()
	if got := flycast.Maglev(nil); got != nil {
		t.Errorf("no backend has a region of %d", len(got))
	}
}

// Section 5.3 of the paper: the shares of two backends differ by at most the number of
// turns they may be out of step. Every turn gives each backend one position, so here
// they differ by at most one.
func TestMaglevSpread(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		backends := drawBackends(t, 1, 60)
		counts := shares(backends)
		least, most := len(flycast.Maglev(backends)), 0
		for _, backend := range backends {
			least, most = min(least, counts[backend]), max(most, counts[backend])
		}
		if most-least > 1 {
			t.Fatalf("of %d backends one has %d positions and one %d", len(backends), least, most)
		}
		if got, want := len(flycast.Maglev(backends)), int(flycast.RegionLength(len(backends))); got != want {
			t.Fatalf("the region has %d positions, want %d", got, want)
		}
	})
}

// Every host computes the same, whatever order it knows the backends in.
func TestMaglevIsOfTheSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		backends := drawBackends(t, 1, 40)
		shuffled := rapid.Permutation(backends).Draw(t, "shuffled")
		one, other := flycast.Maglev(backends), flycast.Maglev(shuffled)
		for i := range one {
			if backends[one[i]] != shuffled[other[i]] {
				t.Fatalf("position %d is %+v's or %+v's, by the order", i, backends[one[i]], shuffled[other[i]])
			}
		}
	})
}

// A backend that goes moves its own positions, and few others: the paper measures under
// 2 % of them at 100 positions a backend; small sets vary more.
func TestMaglevDisruption(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		backends := drawBackends(t, 3, 60)
		gone := rapid.IntRange(0, len(backends)-1).Draw(t, "gone")
		rest := slices.Delete(slices.Clone(backends), gone, gone+1)
		before, after := flycast.Maglev(backends), flycast.Maglev(rest)
		if len(before) != len(after) {
			return // another length moves all: established flows do not mind
		}
		moved := 0
		for i := range before {
			if was := backends[before[i]]; was != backends[gone] && was != rest[after[i]] {
				moved++
			}
		}
		if share := float64(moved) / float64(len(before)); share > 0.35 {
			t.Fatalf("%.0f %% of the positions of %d other backends moved", 100*share, len(rest))
		}
	})
}

// The region of a known set: a change of it is a change for every running fleet.
func TestMaglevIsStable(t *testing.T) {
	t.Parallel()
	var backends []maps.Backend
	for machine := range sixpn.Machine(5) {
		backends = append(backends, maps.Backend{Network: 0x17, Host: 0xa7b0bea, Machine: machine + 1, Port: 8080})
	}
	got := flycast.Maglev(backends)[:16]
	if want := []uint32{2, 3, 2, 1, 1, 0, 4, 2, 4, 2, 3, 0, 1, 4, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("the region begins with %v, want %v", got, want)
	}
}

func BenchmarkMaglev(b *testing.B) {
	var backends []maps.Backend
	for machine := range sixpn.Machine(100) {
		backends = append(backends, maps.Backend{Network: 1, Host: 3, Machine: machine + 1, Port: 8080})
	}
	for b.Loop() {
		flycast.Maglev(backends)
	}
}
