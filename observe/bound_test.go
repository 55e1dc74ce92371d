package observe

import (
	"testing"

	"pgregory.net/rapid"
)

func TestBound(t *testing.T) {
	t.Parallel()
	b := newBound[int](2)
	if !b.admits(1) || !b.admits(2) || b.admits(3) || !b.admits(1) {
		t.Error("the first two, and these only, should have their own series")
	}
	b.forget(func(key int) bool { return key != 1 })
	if !b.admits(3) || b.admits(1) {
		t.Error("the place of one that is gone should be the next one's")
	}
}

// Whatever comes and goes, a sum is what was counted in all, and never falls.
func TestLedger(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLedger[int, string]()
		there := map[int]uint64{}
		counted, before := uint64(0), uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"count": func(t *rapid.T) {
				n := uint64(rapid.IntRange(0, 5).Draw(t, "n"))
				there[rapid.IntRange(0, 4).Draw(t, "thing")] += n
				counted += n
			},
			"scrape": func(*rapid.T) {
				for thing, n := range there {
					l.see(thing, "sum", values{n})
				}
				l.sweep(func(string) bool { return true })
			},
			"go": func(t *rapid.T) {
				thing := rapid.IntRange(0, 4).Draw(t, "thing")
				if n, ok := there[thing]; ok {
					l.gone(thing, "sum", values{n})
					delete(there, thing)
				}
			},
			"": func(t *rapid.T) {
				sum := l.sums["sum"][0]
				if sum < before || sum > counted {
					t.Fatalf("the sum is %d after %d; %d were counted", sum, before, counted)
				}
				before = sum
			},
		})
		for thing, n := range there {
			l.see(thing, "sum", values{n})
		}
		if sum := l.sums["sum"][0]; sum != counted {
			t.Fatalf("in the end the sum is %d of %d", sum, counted)
		}
	})
}
