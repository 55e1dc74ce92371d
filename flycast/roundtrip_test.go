package flycast

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

// lost stands for a request without an answer.
const lost = time.Duration(-1)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	repeated := func(took time.Duration, n int) (all []time.Duration) {
		for range n {
			all = append(all, took)
		}
		return all
	}
	for _, c := range []struct {
		name string
		took []time.Duration
		want RoundTrip
		row  int // lost in a row
	}{
		{"nothing was sent", nil, RoundTrip{}, 0},
		{"the first answer", []time.Duration{80 * ms}, RoundTrip{Smoothed: 80 * ms, Variation: 40 * ms, Latest: 80 * ms, Probes: 1, Answered: at}, 0},
		{"a second one counts an eighth", []time.Duration{80 * ms, 160 * ms}, RoundTrip{Smoothed: 90 * ms, Variation: 50 * ms, Latest: 160 * ms, Probes: 2, Answered: at}, 0},
		{"so does a shorter one", []time.Duration{80 * ms, 0}, RoundTrip{Smoothed: 70 * ms, Variation: 50 * ms, Probes: 2, Answered: at}, 0},
		{"one of two is lost", []time.Duration{80 * ms, lost}, RoundTrip{Smoothed: 80 * ms, Variation: 40 * ms, Latest: 80 * ms, Probes: 2, Loss: 0.5, Answered: at}, 1},
		{"an answer after it", []time.Duration{80 * ms, lost, lost, 80 * ms}, RoundTrip{Smoothed: 80 * ms, Variation: 30 * ms, Latest: 80 * ms, Probes: 4, Loss: 0.5, Answered: at}, 0},
		{"all are lost, fewer than the window", repeated(lost, 3), RoundTrip{Probes: 3, Loss: 1}, 3},
		{"the window is the latest 32", append(repeated(lost, 16), repeated(80*ms, 32)...), RoundTrip{Smoothed: 80 * ms, Latest: 80 * ms, Probes: 32, Answered: at}, 0},
		{"31 lost after an answer", append([]time.Duration{80 * ms}, repeated(lost, 31)...), RoundTrip{Smoothed: 80 * ms, Variation: 40 * ms, Latest: 80 * ms, Probes: 32, Loss: 31. / 32, Answered: at}, 31},
		{"32 lost: nothing is known any more", append([]time.Duration{80 * ms}, repeated(lost, 32)...), RoundTrip{Probes: 32, Loss: 1, Answered: at}, 32},
		{"and the next answer is as the first", append(append([]time.Duration{80 * ms}, repeated(lost, 40)...), 8*ms), RoundTrip{Smoothed: 8 * ms, Variation: 4 * ms, Latest: 8 * ms, Probes: 32, Loss: 31. / 32, Answered: at}, 0},
	} {
		var r roundTrip
		for _, took := range c.took {
			if took == lost {
				r.lose()
			} else {
				r.answer(took, at)
			}
		}
		got := r.seen(0)
		if c.name == "the window is the latest 32" {
			got.Variation = 0 // it has become small
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: the round trip differs (- wanted, + got):\n%s", c.name, d)
		}
		if n := r.lostInARow(); n != c.row {
			t.Errorf("%s: %d were lost in a row, want %d", c.name, n, c.row)
		}
	}
}

func TestRegionTimes(t *testing.T) {
	t.Parallel()
	type times = map[string]time.Duration
	var r regionTimes
	for _, step := range []struct {
		name string
		now  times
		want times
	}{
		{"nothing is measured", times{}, nil},
		{"two regions", times{"fra": 10 * ms, "nrt": 200 * ms}, times{"fra": 10 * ms, "nrt": 200 * ms}},
		{"a fifth away is as before", times{"fra": 12 * ms, "nrt": 160 * ms}, times{"fra": 10 * ms, "nrt": 200 * ms}},
		{"what crept away in small steps counts", times{"fra": 12*ms + 1, "nrt": 159 * ms}, times{"fra": 12*ms + 1, "nrt": 159 * ms}},
		{"and back is a change again only from there", times{"fra": 10 * ms, "nrt": 159 * ms}, times{"fra": 12*ms + 1, "nrt": 159 * ms}},
		{"one that is not measured any more", times{"nrt": 159 * ms}, times{"nrt": 159 * ms}},
		{"a very near one", times{"nrt": 159 * ms, "fra": 100 * time.Microsecond}, times{"nrt": 159 * ms, "fra": 100 * time.Microsecond}},
		{"less than a millisecond is noise", times{"nrt": 159 * ms, "fra": 900 * time.Microsecond}, times{"nrt": 159 * ms, "fra": 100 * time.Microsecond}},
	} {
		before := map[string]time.Duration{}
		for region, said := range r.said {
			before[region] = said
		}
		changed := r.update(step.now)
		if len(step.want) == 0 && len(r.said) == 0 {
			continue
		}
		if d := cmp.Diff(step.want, r.said); d != "" {
			t.Errorf("%s: what is said differs (- wanted, + got):\n%s", step.name, d)
		}
		if changed == cmp.Equal(before, r.said) {
			t.Errorf("%s: changed is %v", step.name, changed)
		}
	}
}
