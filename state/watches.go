package state

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchedRange is keys that a partial Store watches.
type watchedRange struct {
	end     string // "" for the one key
	changed string // whose revision says when it was changed last
}

// ranges is what to watch, by where each range begins.
func (c *scope) ranges() map[string]watchedRange {
	under := func(prefix, changed string) watchedRange {
		return watchedRange{clientv3.GetPrefixRangeEnd(prefix), changed}
	}
	// From the fleet to the hosts there is nothing else but its generation.
	all := map[string]watchedRange{keyFleet: under(keyHosts(), changedHosts)}
	if c.self != 0 {
		all[indexHostMachines(c.self)] = under(indexHostMachines(c.self), changedHostMachines(c.self))
	}
	for n := range c.whole {
		all[keyNetworkAll(n)] = under(keyNetworkAll(n), changedNetwork(n))
	}
	for n := range c.vips {
		all[keyVIPs(n)] = under(keyVIPs(n), changedVIPs(n))
	}
	for app, n := range c.places {
		if n == 0 { // else the record of the app is watched
			all[nameApp(app)] = watchedRange{"", nameApp(app)}
		}
	}
	for app := range c.users {
		all[indexAppVIPs(app)] = under(indexAppVIPs(app), changedAppVIPs(app))
	}
	return all
}

// watches is those of a partial Store, and what they have delivered that is in no
// snapshot yet.
type watches struct {
	store   *Store
	ctx     context.Context
	running sync.WaitGroup
	ranges  map[string]*rangeWatch // by where each begins
	arrived chan delivery
	pending []pendingEvent
}

type rangeWatch struct {
	watchedRange
	from      string
	cancel    context.CancelFunc
	read      int64 // up to which its range was read: older events are in that
	delivered int64 // up to which it has delivered by itself
	complete  int64 // up to which it was found to have delivered all
}

type delivery struct {
	by       *rangeWatch
	response clientv3.WatchResponse
	ended    bool
}

type pendingEvent struct {
	by *rangeWatch
	*clientv3.Event
}

// watchRanges is watch of a partial Store. Events wait until the store has said which
// revision it is at, and all watches have delivered what is up to that one: so each
// snapshot is of one revision, however many networks a transaction has changed, and
// however the watches overtake each other.
func (s *Store) watchRanges(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	w := &watches{store: s, ctx: clientv3.WithRequireLeader(ctx), ranges: map[string]*rangeWatch{}, arrived: make(chan delivery, deliveriesAtOnce)}
	defer w.running.Wait()
	defer cancel()
	w.adjust()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case d := <-w.arrived:
			if err := w.take(d); err != nil {
				return err
			}
		case <-s.asked:
			asked = true
		}
		if err := w.takeAll(); err != nil {
			return err
		}
		for asked || len(w.pending) > 0 {
			if err := w.settle(asked); err != nil {
				return err
			}
			asked = false
		}
	}
}

// adjust watches what is in the scope, each range from where it was delivered or read,
// and nothing else.
func (w *watches) adjust() {
	s := w.store
	wanted := s.scope.ranges()
	for from, r := range w.ranges {
		if _, ok := wanted[from]; !ok {
			r.cancel()
			delete(w.ranges, from)
			w.pending = slices.DeleteFunc(w.pending, func(e pendingEvent) bool { return e.by == r })
		}
	}
	maps.DeleteFunc(s.delivered, func(from string, _ int64) bool { _, ok := wanted[from]; return !ok })
	for from, r := range wanted {
		if w.ranges[from] != nil {
			continue
		}
		at, ok := s.delivered[from]
		if !ok {
			at = s.Reached()
			s.delivered[from] = at
		}
		ctx, cancel := context.WithCancel(w.ctx)
		started := &rangeWatch{watchedRange: r, from: from, cancel: cancel, read: at, delivered: at, complete: at}
		w.ranges[from] = started
		w.running.Go(func() { w.run(ctx, started, at+1) })
	}
}

// run hands on what a watch delivers.
func (w *watches) run(ctx context.Context, r *rangeWatch, revision int64) {
	options := []clientv3.OpOption{clientv3.WithRev(revision), clientv3.WithProgressNotify()}
	if r.end != "" {
		options = append(options, clientv3.WithRange(r.end))
	}
	stream := w.store.client.Watch(ctx, r.from, options...)
	for {
		response, open := <-stream
		select {
		case w.arrived <- delivery{r, response, !open}:
		case <-ctx.Done():
			return
		}
		if !open {
			return
		}
	}
}

// deliveriesAtOnce is how many may wait to be settled together.
const deliveriesAtOnce = 256

// takeAll takes what has arrived.
func (w *watches) takeAll() error {
	for {
		select {
		case d := <-w.arrived:
			if err := w.take(d); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// take keeps what arrived until it is settled.
func (w *watches) take(d delivery) error {
	if w.ranges[d.by.from] != d.by {
		return nil // of a range that is not watched any more
	}
	if d.ended {
		return errWatchEnded
	}
	s := w.store
	if err := d.response.Err(); err != nil {
		return err
	}
	if err := s.recognise(d.response.Header, 0, ""); err != nil {
		return err
	}
	if s.doubtful(d.response.Header) {
		if err := s.probe(w.ctx); err != nil {
			return err
		}
	}
	if d.response.IsProgressNotify() {
		// Its own one, which nobody has requested: it does not overtake events.
		d.by.delivered = max(d.by.delivered, d.response.Header.Revision)
		w.remember()
	}
	for _, e := range d.response.Events {
		d.by.delivered = max(d.by.delivered, e.Kv.ModRevision)
		if e.Kv.ModRevision > d.by.read {
			w.pending = append(w.pending, pendingEvent{d.by, e})
		}
	}
	return nil
}

var errWatchEnded = errors.New("a watch of the store has ended")

// settle makes a snapshot of all that is up to the revision that the store is at, as
// soon as all of it has arrived. When that takes too long, everything is read anew.
func (w *watches) settle(latest bool) error {
	s := w.store
	revision, missing, err := w.verify(latest)
	if err != nil {
		return err
	}
	late := time.NewTimer(s.patience)
	defer late.Stop()
	for !w.delivered(missing) {
		select {
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		case d := <-w.arrived:
			if err := w.take(d); err != nil {
				return err
			}
		case <-late.C:
			s.log.Warn("watches of the store are late: reading everything again", "revision", revision, "ranges", slices.Sorted(maps.Keys(missing)))
			return w.readAnew()
		}
	}
	var now []*clientv3.Event
	rest := w.pending[:0:0]
	for _, e := range w.pending {
		if e.Kv.ModRevision <= revision {
			now = append(now, e.Event)
		} else {
			rest = append(rest, e)
		}
	}
	// What was removed goes first: of what has moved the record is written elsewhere.
	slices.SortStableFunc(now, func(a, b *clientv3.Event) int {
		return cmp.Or(cmp.Compare(a.Kv.ModRevision, b.Kv.ModRevision), -cmp.Compare(a.Type, b.Type))
	})
	if torn, err := w.torn(now); err != nil {
		return err
	} else if torn {
		return w.readAnew()
	}
	if err := s.apply(w.ctx, now, revision); err != nil {
		return err
	}
	w.pending = rest
	for _, r := range w.ranges {
		r.complete = max(r.complete, revision)
	}
	w.remember()
	w.adjust()
	return nil
}

// remember notes from where each watch would go on: from what it has delivered itself.
func (w *watches) remember() {
	for from, r := range w.ranges {
		w.store.delivered[from] = r.delivered
	}
	for _, e := range w.pending {
		w.store.delivered[e.by.from] = min(w.store.delivered[e.by.from], e.Kv.ModRevision-1)
	}
}

func (w *watches) delivered(missing map[string]int64) bool {
	for from, revision := range missing {
		if w.ranges[from].delivered < revision {
			return false
		}
	}
	return true
}

// readAnew goes on from a full read, with the same watches.
func (w *watches) readAnew() error {
	s := w.store
	d, err := s.readAll(w.ctx)
	if err != nil {
		return err
	}
	s.publish(d)
	w.pending = nil
	for from, r := range w.ranges {
		r.read = d.next.Revision
		r.delivered, r.complete = max(r.delivered, r.read), max(r.complete, r.read)
		s.delivered[from] = r.delivered
	}
	w.adjust()
	return nil
}
