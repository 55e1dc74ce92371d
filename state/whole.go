package state

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Whole is all of the fleet beside a partial Store, for those who ask seldom, and about
// anything: people and their programs. It is read when somebody asks, follows the store
// while it is asked, and is let go of when nobody has for a while. While the store is
// away it is what the partial Store has. Its methods may be called from any goroutine.
type Whole struct {
	local *Store
	idle  time.Duration

	mu    sync.Mutex
	open  *Store // nil: nobody has asked
	end   context.CancelFunc
	ended chan struct{}
	timer *time.Timer // lets go of open; stopped while somebody waits
	users int         // who wait
}

// defaultIdle is long enough for a person to look at what came.
const defaultIdle = 5 * time.Minute

// NewWhole makes one beside a Store; idle is how long it is kept after it was last
// asked, 0 for five minutes.
func NewWhole(local *Store, idle time.Duration) *Whole {
	return &Whole{local: local, idle: orDefault(idle, defaultIdle)}
}

// Snapshot is the latest one of the whole fleet, or the partial Store's while the store
// does not answer.
func (w *Whole) Snapshot() *Snapshot {
	s := w.use(context.Background())
	defer w.leave(s)
	return s.Snapshot()
}

// Wait is Store.Wait of the whole fleet. What it returns the partial Store has too: whoever
// waited for something finds it in what else the host answers. After 0 there always is one.
func (w *Whole) Wait(ctx context.Context, after int64) (*Snapshot, error) {
	s := w.use(ctx)
	defer w.leave(s)
	snapshot, err := s.Wait(ctx, after)
	if err != nil {
		return nil, err
	}
	return w.awaitLocal(ctx, snapshot), nil
}

// awaitLocal returns a snapshot when the partial Store is as far, which it hardly ever is
// not, for both are told at the same time. One that is cut off just now is not waited for.
func (w *Whole) awaitLocal(ctx context.Context, snapshot *Snapshot) *Snapshot {
	if _, away := w.local.Contact(); away == nil {
		ctx, cancel := context.WithTimeout(ctx, w.local.patience)
		defer cancel()
		_, _ = w.local.Reach(ctx, snapshot.Revision)
	}
	return snapshot
}

// Close lets go of everything, and returns when that has ended.
func (w *Whole) Close() {
	w.mu.Lock()
	ended := w.drop()
	w.mu.Unlock()
	<-ended
}

// use returns the Store to ask, until leave.
func (w *Whole) use(ctx context.Context) *Store {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		if _, away := w.local.Contact(); away != nil {
			return w.local
		}
		s, err := w.local.openWhole(ctx)
		if err != nil {
			w.local.log.Warn("the state of the whole fleet cannot be read: what concerns this host is shown", "error", err)
			return w.local
		}
		w.start(s)
	}
	w.users++
	w.timer.Stop()
	return w.open
}

func (w *Whole) leave(s *Store) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s != w.open {
		return
	}
	if w.users--; w.users == 0 {
		w.timer.Reset(w.idle)
	}
}

// start follows the store. The caller holds the lock, as that of drop does.
func (w *Whole) start(s *Store) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx) // ends with the context; of a restored store, with the agent's own
	}()
	w.open, w.end, w.ended = s, cancel, ended
	w.timer = time.AfterFunc(w.idle, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.open == s && w.users == 0 {
			w.drop()
		}
	})
}

func (w *Whole) drop() (ended <-chan struct{}) {
	if w.open == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	w.end()
	w.timer.Stop()
	ended = w.ended
	w.open, w.users = nil, 0
	return ended
}

// openWhole is a Store of everything that begins with what this one knows of the hosts,
// and of which store is the known one.
func (s *Store) openWhole(ctx context.Context) (*Store, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	whole := newStore(StoreConfig{
		Client: s.client, Log: s.log, Window: s.window, Grace: s.grace, Patience: s.patience, ProbeInterval: s.probeInterval,
	})
	s.mu.Lock()
	whole.snapshot, whole.reached, whole.self = s.snapshot, s.reached, s.self
	whole.cluster, whole.term, whole.lost = s.cluster, s.term, maps.Clone(s.lost)
	s.mu.Unlock()
	d, err := whole.readAll(ctx)
	if err != nil {
		return nil, err
	}
	whole.publish(d)
	return whole, nil
}
