package flycast

import (
	"math/bits"
	"time"

	"github.com/sixpn/sixpn"
)

// RoundTrip is what echo requests to a host say of the way there.
type RoundTrip struct {
	Host      sixpn.Host
	Smoothed  time.Duration // 0: none of the latest Probes was answered
	Variation time.Duration // mean deviation from it
	Latest    time.Duration
	Probes    int       // how many of the latest requests Loss is of
	Loss      float64   // part of them without an answer, 0 to 1
	Answered  time.Time // when the last answer came; zero: never
}

// lossWindow is how many requests the loss is of.
const lossWindow = 32

// roundTrip counts for one host. The times are smoothed as RFC 6298, section 2, does it
// for TCP: a new one counts an eighth, its deviation a quarter.
type roundTrip struct {
	smoothed, variation, latest time.Duration
	answered                    time.Time
	answers                     int    // since the way was last found dead
	window                      uint32 // a bit a request, the newest lowest: 1 was lost
	probes                      int    // bits of window in use
}

// answer counts one that took so long.
func (r *roundTrip) answer(took time.Duration, at time.Time) {
	r.push(0)
	r.latest, r.answered = took, at
	if r.answers++; r.answers == 1 {
		r.smoothed, r.variation = took, took/2
		return
	}
	r.variation += ((took - r.smoothed).Abs() - r.variation) / 4
	r.smoothed += (took - r.smoothed) / 8
}

// lose counts a request without an answer. When none of the window has one, what is
// known is forgotten: the way that comes next may be another.
func (r *roundTrip) lose() {
	r.push(1)
	if bits.OnesCount32(r.window) == lossWindow {
		r.smoothed, r.variation, r.latest, r.answers = 0, 0, 0, 0
	}
}

func (r *roundTrip) push(bit uint32) {
	r.window = r.window<<1 | bit
	r.probes = min(r.probes+1, lossWindow)
}

func (r *roundTrip) seen(host sixpn.Host) RoundTrip {
	seen := RoundTrip{
		Host: host, Smoothed: r.smoothed, Variation: r.variation, Latest: r.latest, Probes: r.probes, Answered: r.answered,
	}
	if r.probes > 0 {
		seen.Loss = float64(bits.OnesCount32(r.window)) / float64(r.probes)
	}
	return seen
}

// lostInARow is how many of the latest requests, up to the window, had no answer.
func (r *roundTrip) lostInARow() int { return min(bits.TrailingZeros32(^r.window), r.probes) }

// enoughAnswers is how many answers make a time that others may go by: the first may
// have waited for a handshake of the mesh.
const enoughAnswers = 4

// regionTimes makes the time to each region out of those to its hosts: the shortest,
// for one host that is slow says nothing of the place. It changes a time only when that
// is a fifth, and a millisecond, away from what it said before: the order of regions
// that are about as far stays, and with it names and who takes new flows.
type regionTimes struct {
	said map[string]time.Duration
}

// update takes the times of now; changed is whether any is said otherwise than before.
func (r *regionTimes) update(now map[string]time.Duration) (changed bool) {
	for region := range r.said {
		if _, ok := now[region]; !ok {
			delete(r.said, region)
			changed = true
		}
	}
	for region, measured := range now {
		before, ok := r.said[region]
		if ok && (measured-before).Abs() <= max(time.Millisecond, before/5) {
			continue
		}
		if r.said == nil {
			r.said = map[string]time.Duration{}
		}
		r.said[region] = measured
		changed = true
	}
	return changed
}
