package state

import (
	"context"
	"crypto/rand"
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
	session string
	window  time.Duration

	mu       sync.Mutex
	snapshot *Snapshot
	changed  chan struct{} // closed when snapshot is replaced
	self     sixpn.Host    // 0: on none
	lost     map[sixpn.Host]time.Time
}

// StoreConfig is what a Store is made of.
type StoreConfig struct {
	Client *clientv3.Client // stays the caller's
	Log    *slog.Logger
	Host   sixpn.Host // that this is on, 0 for none or not known yet: see SetHost
	// Window is the time within which leases that end have ended together; it should be
	// their TTL. 0: DefaultPresenceTTL.
	Window time.Duration
}

// Open is OpenStore with nothing but a client.
func Open(ctx context.Context, client *clientv3.Client, log *slog.Logger) (*Store, error) {
	return OpenStore(ctx, StoreConfig{Client: client, Log: log})
}

// OpenStore reads everything once. Nothing keeps the snapshot current until Run does.
// The error is of kind Unavailable.
func OpenStore(ctx context.Context, c StoreConfig) (*Store, error) {
	s := &Store{
		client: c.Client, log: c.Log, session: rand.Text(), window: orDefault(c.Window, DefaultPresenceTTL),
		changed: make(chan struct{}), self: c.Host, lost: map[sixpn.Host]time.Time{},
	}
	d, err := s.readAll(ctx)
	if err != nil {
		return nil, err
	}
	s.publish(d)
	return s, nil
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

// publish makes a draft the latest snapshot.
func (s *Store) publish(d *draft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot == nil || d.hostsChanged() {
		s.judge(&d.next)
	} else {
		d.next.held, d.next.Absent, d.next.alarm = s.snapshot.held, s.snapshot.Absent, s.snapshot.alarm
	}
	s.replace(&d.next)
}

// replace is for who holds the lock.
func (s *Store) replace(next *Snapshot) {
	s.snapshot = next
	close(s.changed)
	s.changed = make(chan struct{})
}
