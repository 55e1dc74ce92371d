package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// Store is where snapshots come from.
type Store interface {
	Snapshot() *state.Snapshot
	// Next returns the latest snapshot once it is another one than this.
	Next(ctx context.Context, than *state.Snapshot) (*state.Snapshot, error)
}

// Tables are the kernel's.
type Tables interface {
	Sync(ctx context.Context, want maps.Want) (maps.Changes, error)
}

// Config of a Loop.
type Config struct {
	Host     sixpn.Host
	Store    Store
	Tables   Tables
	Settings Settings
	// OnGone is called after backends were flagged gone: time to look for their
	// flows. It must not block. nil: nobody wants to know.
	OnGone func()
	// OnApplied is called for every snapshot but the first once the tables have it,
	// with the time since it arrived. It must not block. nil: nobody wants to know.
	OnApplied func(took time.Duration)
	// A Sync that failed is tried again after RetryMin, then after twice that, up to
	// RetryMax. 0: 100 ms and 10 s.
	RetryMin, RetryMax time.Duration
	// Collect is the time to the next Sync while something waits to be freed. It
	// should be above the tables' grace period. 0: 5 s.
	Collect time.Duration
	Log     *slog.Logger
}

// Loop keeps the tables as the latest snapshot and the local ports want them. Changes
// that come while it is at work are taken together: only the latest counts.
type Loop struct {
	config Config
	kick   chan struct{} // there is something new

	mu       sync.Mutex
	moved    chan struct{} // closed, and replaced, when the below changes
	snapshot *state.Snapshot
	host     HostPort
	mesh     MeshPort
	ports    map[string]Port // by Machine id
	complete bool            // ports are all that there are
	version  uint64          // of host, mesh, ports and complete
	status   Status
	applied  uint64             // version in the tables
	failure  error              // of the last Sync
	refused  *maps.RefusedError // of the last Sync, if it was one
	arrivals []arrival          // of snapshots that the tables have not, in order
}

// arrival is when a snapshot came.
type arrival struct {
	revision int64
	at       time.Time
}

// maxArrivals is how many are remembered while the tables cannot follow.
const maxArrivals = 4096

// Status is how far the tables are.
type Status struct {
	Wanted   int64        // revision of the latest snapshot
	Applied  int64        // revision that the tables have
	Error    string       // why Wanted is not reached, or what found no room; else empty
	Failures int          // Syncs in a row that failed
	Last     maps.Changes // of the last Sync that did something
	LastAt   time.Time
}

// NewLoop checks the configuration and fills in what it leaves open.
func NewLoop(config Config) (*Loop, error) {
	switch {
	case config.Store == nil:
		return nil, errors.New("reconcile: Config.Store is missing: give the store of the snapshots")
	case config.Tables == nil:
		return nil, errors.New("reconcile: Config.Tables is missing: give the kernel's tables")
	case config.Log == nil:
		return nil, errors.New("reconcile: Config.Log is missing: give a logger")
	}
	setDefault(&config.RetryMin, 100*time.Millisecond)
	setDefault(&config.RetryMax, 10*time.Second)
	setDefault(&config.Collect, 5*time.Second)
	setDefault(&config.Settings.MachineFlows, DefaultSettings.MachineFlows)
	setDefault(&config.Settings.NetworkFlows, DefaultSettings.NetworkFlows)
	return &Loop{
		config: config,
		kick:   make(chan struct{}, 1),
		moved:  make(chan struct{}),
		ports:  map[string]Port{},
	}, nil
}

func setDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// Run works until ctx ends; it returns nil then. The tables stay as they are.
func (l *Loop) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.follow(ctx) })
	group.Go(func() error { return l.work(ctx) })
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// follow takes up every new snapshot.
func (l *Loop) follow(ctx context.Context) error {
	snapshot := l.config.Store.Snapshot()
	for before := snapshot.Revision; ; {
		l.change(func() {
			l.snapshot = snapshot
			l.status.Wanted = snapshot.Revision
			if snapshot.Revision > before && len(l.arrivals) < maxArrivals {
				l.arrivals = append(l.arrivals, arrival{snapshot.Revision, time.Now()})
			}
		})
		before = snapshot.Revision
		next, err := l.config.Store.Next(ctx, snapshot)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("reconcile: wait for the store: %w", err)
		}
		snapshot = next
	}
}

// work syncs whenever there is something new, something failed, or something waits.
func (l *Loop) work(ctx context.Context) error {
	retry := l.config.RetryMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.kick:
		case <-timer.C:
		}
		changes, again := l.sync(ctx)
		switch {
		case again:
			timer.Reset(retry)
			retry = min(2*retry, l.config.RetryMax)
		case changes.Waiting > 0:
			retry = l.config.RetryMin
			timer.Reset(l.config.Collect)
		default:
			retry = l.config.RetryMin
			timer.Stop()
		}
	}
}

// sync makes one Sync of the latest there is; again says that it must be repeated.
func (l *Loop) sync(ctx context.Context) (changes maps.Changes, again bool) {
	l.mu.Lock()
	snapshot, version := l.snapshot, l.version
	local := Local{HostPort: l.host, Mesh: l.mesh, Partial: !l.complete}
	for _, port := range l.ports {
		local.Ports = append(local.Ports, port)
	}
	complete := l.complete
	l.mu.Unlock()
	if snapshot == nil {
		return changes, false
	}

	want := Compile(snapshot, l.config.Host, local, l.config.Settings)
	want.AddOnly = !complete
	changes, err := l.config.Tables.Sync(ctx, want)
	if changes.Gone > 0 && l.config.OnGone != nil {
		l.config.OnGone()
	}
	if ctx.Err() != nil {
		return changes, false
	}
	var refused *maps.RefusedError
	applied := err == nil || errors.As(err, &refused)

	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.status.Error
	l.failure, l.refused = err, refused
	l.status.Error = ""
	if err != nil {
		l.status.Error = err.Error()
		l.status.Failures++
	} else {
		l.status.Failures = 0
	}
	if changes.Writes > 0 {
		l.status.Last, l.status.LastAt = changes, time.Now()
		l.config.Log.Debug("tables synced", "revision", snapshot.Revision, "writes", changes.Writes, "waiting", changes.Waiting)
	}
	if applied {
		l.status.Applied, l.applied = snapshot.Revision, version
		l.reportArrivals()
	}
	if l.status.Error != before {
		if err != nil {
			l.config.Log.Error("tables are not as wanted", "revision", snapshot.Revision, "error", err)
		} else {
			l.config.Log.Info("tables are as wanted again", "revision", snapshot.Revision)
		}
	}
	close(l.moved)
	l.moved = make(chan struct{})
	return changes, err != nil
}

// Recompile has the tables made again although no snapshot and no port has changed: the
// Settings' functions answer otherwise than before. It does not wait.
func (l *Loop) Recompile() { l.changeLocal(func() {}) }

// reportArrivals tells of the snapshots that the tables have now.
func (l *Loop) reportArrivals() {
	for len(l.arrivals) > 0 && l.arrivals[0].revision <= l.status.Applied {
		if l.config.OnApplied != nil {
			l.config.OnApplied(time.Since(l.arrivals[0].at))
		}
		l.arrivals = l.arrivals[1:]
	}
}

// change makes a change under the lock, and has it applied.
func (l *Loop) change(do func()) {
	l.mu.Lock()
	do()
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default: // the kick that waits is for this one too
	}
}

// changeLocal is change for what no store knows; it returns the version to wait for.
func (l *Loop) changeLocal(do func()) (version uint64) {
	l.change(func() {
		do()
		l.version++
		version = l.version
	})
	return version
}

// SetPort adds or changes the port of a Machine, and returns when it is in the
// tables. Run must be at work. If the tables have no room for it the port is dropped
// again, and the error says what is full.
func (l *Loop) SetPort(ctx context.Context, port Port) error {
	version := l.changeLocal(func() { l.ports[port.MachineID] = port })
	err := l.wait(ctx, func() (bool, error) {
		if l.applied < version {
			return false, nil
		}
		if l.refused != nil && l.refused.Tables(bpf.RouterMapPortSlots, bpf.RouterMapMachineSlots, bpf.RouterMapPortCounters, bpf.RouterMapQuotas) {
			return true, l.refused
		}
		return true, nil
	})
	if err != nil {
		l.changeLocal(func() {
			if l.ports[port.MachineID].Ifindex == port.Ifindex {
				delete(l.ports, port.MachineID)
			}
		})
		return fmt.Errorf("reconcile: port of Machine %s: %w", port.MachineID, err)
	}
	return nil
}

// RemovePort removes the port of a Machine, and returns when the tables do not have it
// any more; before PortsComplete it returns too, and the tables lose it then. It is no
// error if there is none.
func (l *Loop) RemovePort(ctx context.Context, machineID string) error {
	version := l.changeLocal(func() { delete(l.ports, machineID) })
	if err := l.wait(ctx, func() (bool, error) { return l.applied >= version, nil }); err != nil {
		return fmt.Errorf("reconcile: remove the port of Machine %s: %w", machineID, err)
	}
	return nil
}

// SetHostPort sets the device into the private namespace, and returns when it is in
// the tables. The zero HostPort is none.
func (l *Loop) SetHostPort(ctx context.Context, port HostPort) error {
	version := l.changeLocal(func() { l.host = port })
	if err := l.wait(ctx, func() (bool, error) { return l.applied >= version, nil }); err != nil {
		return fmt.Errorf("reconcile: host port: %w", err)
	}
	return nil
}

// SetMeshPort sets the device to other hosts, and returns when it is in the tables. The
// zero MeshPort is none: then no Machine of another host is given new flows, once
// PortsComplete was called. Before that it should be set, if there is one.
func (l *Loop) SetMeshPort(ctx context.Context, port MeshPort) error {
	version := l.changeLocal(func() { l.mesh = port })
	if err := l.wait(ctx, func() (bool, error) { return l.applied >= version, nil }); err != nil {
		return fmt.Errorf("reconcile: mesh port: %w", err)
	}
	return nil
}

// PortsComplete says that every port of before a restart, the mesh's too, has been set again. Until
// then nothing is taken out of the tables: what nobody has asked for yet may carry
// traffic.
func (l *Loop) PortsComplete() {
	l.changeLocal(func() { l.complete = true })
}

// Wanted is the revision of the latest snapshot.
func (l *Loop) Wanted() int64 { return l.Status().Wanted }

// Status says how far the tables are.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Applied returns when the tables have this revision of the store or a later one.
// When ctx ends before that, the error says why they have not.
func (l *Loop) Applied(ctx context.Context, revision int64) error {
	if err := l.wait(ctx, func() (bool, error) { return l.status.Applied >= revision, nil }); err != nil {
		return fmt.Errorf("reconcile: revision %d is not applied: %w", revision, err)
	}
	return nil
}

// wait returns once done, which is called under the lock, says so.
func (l *Loop) wait(ctx context.Context, done func() (bool, error)) error {
	for {
		l.mu.Lock()
		moved, failure := l.moved, l.failure
		ok, err := done()
		l.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), failure)
		}
	}
}
