package observe

import "sync"

// other is what a label says of everything beyond a bound.
const other = "other"

// bound keeps a label set from growing without end: the first max keys get series of
// their own, all others share one until one of the first is gone.
type bound[K comparable] struct {
	max   int
	known map[K]bool
}

func newBound[K comparable](max int) *bound[K] { return &bound[K]{max, map[K]bool{}} }

// admits says whether a key has series of its own.
func (b *bound[K]) admits(key K) bool {
	if b.known[key] {
		return true
	}
	if len(b.known) >= b.max {
		return false
	}
	b.known[key] = true
	return true
}

// forget makes room: what is not kept is gone for good.
func (b *bound[K]) forget(keep func(K) bool) {
	for key := range b.known {
		if !keep(key) {
			delete(b.known, key)
		}
	}
}

// ledger adds up the counters of things that come and go, into sums that never fall: a
// sum of what is there now would fall when one goes, and Prometheus takes a counter that
// falls for one that began anew. What was counted before the ledger began is not in it,
// so that sums begin with the agent and at zero.
//
// T names a thing, S the sum that it counts in.
type ledger[T, S comparable] struct {
	last map[T]values
	sums map[S]values
	seen map[T]bool // since the last sweep
}

// values are the counters of one thing; not all are used.
type values [5]uint64

func newLedger[T, S comparable]() *ledger[T, S] {
	return &ledger[T, S]{last: map[T]values{}, sums: map[S]values{}, seen: map[T]bool{}}
}

// begin says what a thing had counted before.
func (l *ledger[T, S]) begin(thing T, now values) { l.last[thing] = now }

// see adds what a thing counted since it was seen last. A counter that fell has begun
// anew: the thing is another one.
func (l *ledger[T, S]) see(thing T, sum S, now values) {
	last, sums := l.last[thing], l.sums[sum]
	for i := range now {
		if now[i] >= last[i] {
			sums[i] += now[i] - last[i]
		} else {
			sums[i] += now[i]
		}
	}
	l.last[thing], l.sums[sum], l.seen[thing] = now, sums, true
}

// gone is see for the last time.
func (l *ledger[T, S]) gone(thing T, sum S, final values) {
	l.see(thing, sum, final)
	delete(l.last, thing)
	delete(l.seen, thing)
}

// sweep forgets the things that were not seen since the last sweep, and the sums that
// are not kept.
func (l *ledger[T, S]) sweep(keep func(S) bool) {
	for thing := range l.last {
		if !l.seen[thing] {
			delete(l.last, thing)
		}
	}
	clear(l.seen)
	for sum := range l.sums {
		if !keep(sum) {
			delete(l.sums, sum)
		}
	}
}

const maxWaiting = 1 << 14

// waiting is what was told in between for the next scrape to take. Whoever tells holds
// locks that a scrape needs, so it must not wait for one. Where nobody scrapes the list
// ends at maxWaiting, and the sums lack what came after.
type waiting[E any] struct {
	mu   sync.Mutex
	list []E
}

func (w *waiting[E]) add(e E) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) < maxWaiting {
		w.list = append(w.list, e)
	}
}

func (w *waiting[E]) take() []E {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.list
	w.list = nil
	return list
}
