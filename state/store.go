package state

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

// DefaultNetwork is the name of the network that every org has.
const DefaultNetwork = "default"

// Store is the records of a fleet: it keeps the latest snapshot by watching etcd,
// and writes by transactions. Its methods may be called from any goroutine.
type Store struct {
	client *clientv3.Client
	log    *slog.Logger
	queues queues
	// session names this Store among all that ever said to be some host.
	session       string
	window        time.Duration
	grace         time.Duration
	doubts        chan struct{} // has an element when a host is to be judged later
	file          string
	saveInterval  time.Duration
	patience      time.Duration
	probeInterval time.Duration
	partial       bool
	refused       func() error
	scope         *scope // of the latest snapshot of a partial Store; of OpenStore and Run only
	saved         int64  // revision that is in the file; of openLast and keepSaving only
	// delivered is up to which revision each watch of a partial Store has delivered by
	// itself what is in the snapshot, by where its range begins; likewise of OpenStore and Run.
	delivered map[string]int64
	asked     chan struct{} // has an element when a partial Store is to find out what is new

	mu       sync.Mutex
	snapshot *Snapshot
	changed  chan struct{} // closed when snapshot is replaced, or reached grows
	reached  int64         // revision up to which the snapshot is current
	self     sixpn.Host    // 0: on none
	lost     map[sixpn.Host]time.Time
	raw      map[string]rawRecord // of the snapshot, if there is a file
	cluster  uint64               // etcd's id of the known store, 0: none was known yet
	term     uint64               // of its latest election that was heard of
	contact  time.Time            // of the last answer
	away     error                // of the exchange after that, nil if there was none
}

// StoreConfig is what a Store is made of.
type StoreConfig struct {
	Client *clientv3.Client // stays the caller's
	Log    *slog.Logger
	Host   sixpn.Host // that this is on, 0 for none or not known yet: see SetHost
	// Window is the time within which leases that end have ended together; it should be
	// their TTL. 0: DefaultPresenceTTL.
	Window time.Duration
	// Grace is how long a host stays present after its lease has ended, so that others
	// that are lost with it are seen before anybody leaves: the first of them must not go
	// while it still looks as if it were alone. It should be the time between two
	// heartbeats, and what the store may be late in ending a lease. 0: none.
	Grace time.Duration
	// Partial leaves out what does not concern Host, so that what it holds grows with the
	// host's own tenants and not with the fleet. It has all hosts; everything of each
	// network that has a Machine of Host, or an app that such a network reaches by a
	// Flycast address; and of networks that reach an app of Host's Machines their
	// addresses. It has no orgs. Its snapshots' revisions pass over what is not in them;
	// see Reach. SetHost counts from the next event on.
	Partial bool
	// Refused is asked when the store does not answer: whether that is because this host is
	// of the fleet no more, as by Refusal. nil: it cannot be known.
	Refused func() error
	// File, if not empty, is where the last state is kept, for a start without the store.
	// Its directory exists, and no other process writes there.
	File string
	// SaveInterval is how far the file may be behind, besides what writing takes: it is
	// written as often, if there is something new, and when Run ends. 0: ten seconds.
	SaveInterval time.Duration
	// Patience is how long the store may take to answer: to a first read when there is a
	// last state, and to a probe. 0: five seconds.
	Patience time.Duration
	// ProbeInterval is how often Run asks the store whether it is the one that was known.
	// 0: five seconds.
	ProbeInterval time.Duration
}

// Defaults of a StoreConfig.
const (
	defaultSaveInterval  = 10 * time.Second
	defaultAnswerTime    = 5 * time.Second
	defaultProbeInterval = 5 * time.Second
)

// Open is OpenStore with nothing but a client.
func Open(ctx context.Context, client *clientv3.Client, log *slog.Logger) (*Store, error) {
	return OpenStore(ctx, StoreConfig{Client: client, Log: log})
}

// OpenStore reads everything once. Nothing keeps the snapshot current until Run does.
// When the store does not answer, or is not the one that was known, and there is a last
// state on disk, that one is in force, and Contact and Snapshot.Alarm say so. Without
// one the error is of kind Unavailable. One that was restored from an export of the known
// one is taken, and gets back what Host has that came after the export.
func OpenStore(ctx context.Context, c StoreConfig) (*Store, error) {
	s := newStore(c)
	known := s.openLast()
	readCtx, cancel := ctx, context.CancelFunc(func() {})
	if known {
		readCtx, cancel = context.WithTimeout(ctx, s.patience)
	}
	defer cancel()
	d, err := s.readAll(readCtx)
	if errors.Is(err, errStranger) {
		// Its error is that the store is away: then it is still a stranger for now.
		if of, _, is, _ := s.restored(ctx); is {
			var next *Store
			if next, d, err = s.takeUp(ctx, c, of); err == nil {
				s, known = next, false
			}
		}
	}
	if errors.Is(err, errStranger) && s.hasMoved(readCtx) {
		s.log.Info("the known store was moved to this one: reading everything", "revision_before", s.snapshot.Revision)
		s = newStore(c)
		d, err = s.readAll(readCtx)
		known = false
	}
	switch {
	case err == nil:
		s.publish(d)
	case !known || ctx.Err() != nil:
		return nil, err
	default:
		s.log.Error("the store cannot be read: the last state on disk is in force", "error", err, "of", s.contact, "revision", s.snapshot.Revision)
	}
	s.noteContact(err)
	return s, nil
}

func newStore(c StoreConfig) *Store {
	return &Store{
		client: c.Client, log: c.Log, session: rand.Text(), window: orDefault(c.Window, DefaultPresenceTTL),
		grace: c.Grace, doubts: make(chan struct{}, 1),
		file: c.File, saveInterval: orDefault(c.SaveInterval, defaultSaveInterval),
		patience: orDefault(c.Patience, defaultAnswerTime), probeInterval: orDefault(c.ProbeInterval, defaultProbeInterval),
		partial: c.Partial, scope: newScope(0), refused: c.Refused, delivered: map[string]int64{}, asked: make(chan struct{}, 1),
		changed: make(chan struct{}), self: c.Host, lost: map[sixpn.Host]time.Time{}, raw: map[string]rawRecord{},
	}
}

// Snapshot is the latest one; never nil.
func (s *Store) Snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// Wait returns the latest snapshot as soon as its revision is greater than after.
// The error is the context's.
func (s *Store) Wait(ctx context.Context, after int64) (*Snapshot, error) {
	for {
		s.mu.Lock()
		snapshot, changed := s.snapshot, s.changed
		s.mu.Unlock()
		if snapshot.Revision > after {
			return snapshot, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Next returns the latest snapshot as soon as it is another one than this. It may be of
// the same revision: what follows from the time that passed is in no record. The error is
// the context's.
func (s *Store) Next(ctx context.Context, than *Snapshot) (*Snapshot, error) {
	for {
		s.mu.Lock()
		snapshot, changed := s.snapshot, s.changed
		s.mu.Unlock()
		if snapshot != than {
			return snapshot, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Reached is the revision up to which the latest snapshot is current. It is that of the
// snapshot, or above it when a partial Store passed over the rest.
func (s *Store) Reached() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached
}

// Reach returns the latest snapshot as soon as it is current up to a revision, which may
// be above its own. The error is the context's.
func (s *Store) Reach(ctx context.Context, revision int64) (*Snapshot, error) {
	for {
		s.mu.Lock()
		snapshot, reached, changed := s.snapshot, s.reached, s.changed
		s.mu.Unlock()
		if reached >= revision {
			return snapshot, nil
		}
		s.ask()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ask has a partial Store find out how far it is.
func (s *Store) ask() {
	select {
	case s.asked <- struct{}{}:
	default: // it will, after whatever was written by now
	}
}

// advance notes that the snapshot is current up to a revision.
func (s *Store) advance(reached int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reached <= s.reached {
		return
	}
	s.reached = reached
	close(s.changed)
	s.changed = make(chan struct{})
}

// Host is the one that this Store is on, 0 for none.
func (s *Store) Host() sixpn.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.self
}

// surveyDue is whether the scope is not that of this Store's host.
func (s *Store) surveyDue() bool { return s.partial && s.scope.self != s.Host() }

// publish makes a draft the latest snapshot.
func (s *Store) publish(d *draft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot == nil || d.hostsChanged() {
		s.judge(&d.next)
	} else {
		d.next.held, d.next.Absent, d.next.lostAll, d.next.left = s.snapshot.held, s.snapshot.Absent, s.snapshot.lostAll, s.snapshot.left
	}
	d.next.refusal = "" // whoever is refused publishes nothing
	if d.whole {
		clear(s.raw)
	}
	for key, r := range d.raw {
		if r == nil {
			delete(s.raw, key)
		} else {
			s.raw[key] = *r
		}
	}
	s.replace(&d.next)
}

// replace is for who holds the lock.
func (s *Store) replace(next *Snapshot) {
	s.snapshot, s.reached = next, max(s.reached, next.Revision)
	close(s.changed)
	s.changed = make(chan struct{})
}
