package reconcile_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

const patience = 10 * time.Second

// store holds a snapshot that tests replace.
type store struct {
	mu       sync.Mutex
	snapshot *state.Snapshot
	moved    chan struct{}
}

func newStore(w *world) *store {
	s := &store{moved: make(chan struct{})}
	s.publish(w, 1)
	return s
}

func (s *store) publish(w *world, revision int64) {
	snapshot := w.snapshot
	snapshot.Revision = revision
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot = &snapshot
	close(s.moved)
	s.moved = make(chan struct{})
}

func (s *store) Snapshot() *state.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

func (s *store) Next(ctx context.Context, than *state.Snapshot) (*state.Snapshot, error) {
	for {
		s.mu.Lock()
		snapshot, moved := s.snapshot, s.moved
		s.mu.Unlock()
		if snapshot != than {
			return snapshot, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tables remembers what was wanted, and answers as it is told.
type tables struct {
	wants  chan maps.Want
	answer func(want maps.Want) (maps.Changes, error)
}

func newTables(answer func(maps.Want) (maps.Changes, error)) *tables {
	return &tables{wants: make(chan maps.Want, 1000), answer: answer}
}

func (f *tables) Sync(_ context.Context, want maps.Want) (maps.Changes, error) {
	changes, err := f.answer(want)
	f.wants <- want
	return changes, err
}

func fine(maps.Want) (maps.Changes, error) { return maps.Changes{}, nil }

func start(t *testing.T, config reconcile.Config) *reconcile.Loop {
	t.Helper()
	config.Host = here
	config.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	config.RetryMin, config.RetryMax = time.Millisecond, 4*time.Millisecond
	if config.Collect == 0 {
		config.Collect = time.Hour
	}
	loop, err := reconcile.NewLoop(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("a loop whose context ended: %v", err)
			}
		case <-time.After(patience):
			t.Error("the loop did not end with its context")
		}
	})
	return loop
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, f *tables) maps.Want {
	t.Helper()
	select {
	case want := <-f.wants:
		return want
	case <-time.After(patience):
		t.Fatal("no Sync came")
		panic("not reached")
	}
}

func TestLoopFollowsTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.app("web", red)
	s := newStore(w)
	loop := start(t, reconcile.Config{Store: s, Tables: newTables(fine)})
	ok(t, loop.Applied(await.Context(t), 1))
	s.publish(w, 7)
	ok(t, loop.Applied(await.Context(t), 5))
	if status := loop.Status(); status.Wanted != 7 || status.Applied != 7 || status.Error != "" {
		t.Errorf("the status is %+v", status)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := loop.Applied(ctx, 8); !errors.Is(err, context.Canceled) {
		t.Errorf("a revision that does not exist is applied: %v", err)
	}
}

// While one Sync is at work, many changes make one more.
func TestLoopCoalesces(t *testing.T) {
	t.Parallel()
	w := newWorld()
	s := newStore(w)
	entered, release := make(chan struct{}, 100), make(chan struct{})
	f := newTables(func(maps.Want) (maps.Changes, error) {
		entered <- struct{}{}
		<-release
		return maps.Changes{}, nil
	})
	loop := start(t, reconcile.Config{Store: s, Tables: f})
	<-entered
	for revision := int64(2); revision <= 50; revision++ {
		s.publish(w, revision)
	}
	ctx := await.Context(t)
	for loop.Wanted() != 50 { // the loop has heard of all before the first Sync ends
		if ctx.Err() != nil {
			t.Fatalf("the loop wants revision %d, not 50", loop.Wanted())
		}
	}
	close(release)
	ok(t, loop.Applied(await.Context(t), 50))
	// One more may be on its way, for a kick that came between.
	if syncs := len(f.wants); syncs > 3 {
		t.Errorf("50 revisions took %d Syncs, want at most 3", syncs)
	}
}

func TestLoopTriesAgain(t *testing.T) {
	t.Parallel()
	s := newStore(newWorld())
	var failures int
	f := newTables(func(maps.Want) (maps.Changes, error) {
		if failures++; failures <= 5 {
			return maps.Changes{}, errors.New("the kernel is unwell")
		}
		return maps.Changes{}, nil
	})
	loop := start(t, reconcile.Config{Store: s, Tables: f})
	ok(t, loop.Applied(await.Context(t), 1))
	if status := loop.Status(); status.Error != "" || status.Failures != 0 {
		t.Errorf("the status is %+v, want no error any more", status)
	}
}

func TestLoopSaysWhyItFails(t *testing.T) {
	t.Parallel()
	s := newStore(newWorld())
	f := newTables(func(maps.Want) (maps.Changes, error) {
		return maps.Changes{}, errors.New("the kernel is unwell")
	})
	loop := start(t, reconcile.Config{Store: s, Tables: f})
	for range 3 {
		next(t, f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := loop.Applied(ctx, 1); err == nil || !strings.Contains(err.Error(), "the kernel is unwell") {
		t.Errorf("the error is %v, want the kernel's in it", err)
	}
	if status := loop.Status(); status.Applied != 0 || status.Error == "" || status.Failures < 2 {
		t.Errorf("the status is %+v", status)
	}
}

func TestLoopPorts(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.app("web", red)
	id := w.machine("web", 1)
	f := newTables(fine)
	loop := start(t, reconcile.Config{Store: newStore(w), Tables: f})
	last := func() (want maps.Want) {
		want = next(t, f)
		for len(f.wants) > 0 {
			want = <-f.wants
		}
		return want
	}

	ok(t, loop.SetPort(await.Context(t), port(id, red, 1)))
	if want := last(); len(want.Ports) != 1 || len(want.Machines) != 1 || !want.AddOnly {
		t.Errorf("with a port, not all being known, the tables should hold %+v", want)
	}
	ok(t, loop.SetHostPort(await.Context(t), hostPort))
	if want := last(); want.HostDevice.Ifindex != hostPort.Ifindex || len(want.Ports) != 2 {
		t.Errorf("with a host port the tables should hold %+v", want)
	}
	ok(t, loop.SetMeshPort(await.Context(t), meshPort))
	if want := last(); want.Mesh.Ifindex != meshPort.Ifindex || len(want.Ports) != 3 {
		t.Errorf("with a mesh the tables should hold %+v", want)
	}
	ok(t, loop.SetMeshPort(await.Context(t), reconcile.MeshPort{}))
	if want := last(); want.Mesh != (maps.MeshDevice{}) || len(want.Ports) != 2 {
		t.Errorf("without the mesh the tables should hold %+v", want)
	}
	loop.PortsComplete()
	if want := last(); want.AddOnly {
		t.Error("with all ports known nothing is taken out")
	}
	ok(t, loop.RemovePort(await.Context(t), id))
	if want := last(); len(want.Machines) != 0 {
		t.Errorf("with the port removed the tables should hold %+v", want)
	}
	ok(t, loop.RemovePort(await.Context(t), "unknown"))
}

// Where a port finds no room it is dropped; where something else does not, the port is
// in the tables.
func TestLoopRefusedPort(t *testing.T) {
	t.Parallel()
	for table, refused := range map[string]bool{"port_slots": true, "machine_slots": true, "port_counters": true, "quotas": true, "maglev": false, "vips": false} {
		w := newWorld()
		w.app("web", red)
		id := w.machine("web", 1)
		f := newTables(func(want maps.Want) (maps.Changes, error) {
			if len(want.Ports) == 0 {
				return maps.Changes{}, nil
			}
			return maps.Changes{}, &maps.RefusedError{Errors: []*maps.CapacityError{{Table: table, What: "something", Max: 1, Hint: "do less"}}}
		})
		loop := start(t, reconcile.Config{Store: newStore(w), Tables: f})
		err := loop.SetPort(await.Context(t), port(id, red, 1))
		if (err != nil) != refused {
			t.Errorf("with a full table %s: error %v, want one: %v", table, err, refused)
		}
		if !refused {
			continue
		}
		ctx := await.Context(t)
		for want := next(t, f); len(want.Ports) != 0; want = next(t, f) {
			if ctx.Err() != nil {
				t.Fatalf("the port that table %s has no room for is still wanted", table)
			}
		}
	}
}

// What waits for its grace period is freed without another change; and who looks for
// flows is told that backends are gone.
func TestLoopCollects(t *testing.T) {
	t.Parallel()
	waiting := 3
	f := newTables(func(maps.Want) (maps.Changes, error) {
		if waiting > 0 {
			waiting--
		}
		return maps.Changes{Waiting: waiting, Gone: 1}, nil
	})
	gone := make(chan struct{}, 100)
	start(t, reconcile.Config{
		Store: newStore(newWorld()), Tables: f, Collect: time.Millisecond,
		OnGone: func() { gone <- struct{}{} },
	})
	for range 3 {
		next(t, f)
	}
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("nobody was told of backends that are gone")
	}
}

// Every snapshot but the first is told of once it is in the tables, not before, and one
// that was overtaken with the one that overtook it.
func TestLoopTellsWhatIsApplied(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	failing := false
	f := newTables(func(maps.Want) (maps.Changes, error) {
		mu.Lock()
		defer mu.Unlock()
		if failing {
			return maps.Changes{}, errors.New("told to fail")
		}
		return maps.Changes{}, nil
	})
	applied := make(chan time.Duration, 100)
	w := newWorld()
	s := newStore(w)
	loop := start(t, reconcile.Config{Store: s, Tables: f, OnApplied: func(took time.Duration) { applied <- took }})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fail := func(now bool) {
		mu.Lock()
		defer mu.Unlock()
		failing = now
	}
	if err := loop.Applied(ctx, 1); err != nil {
		t.Fatal(err)
	}
	fail(true)
	for revision := int64(2); revision <= 3; revision++ {
		s.publish(w, revision)
		for loop.Wanted() < revision { // so that it is not overtaken before it was seen
			next(t, f)
		}
	}
	if len(applied) != 0 {
		t.Errorf("%d snapshots were told of, though none is in the tables", len(applied))
	}
	fail(false)
	if err := loop.Applied(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if len(applied) != 2 {
		t.Errorf("%d snapshots were told of, want the second and the third", len(applied))
	}
	if took := <-applied; took <= 0 || took > patience {
		t.Errorf("the second took %v", took)
	}
}

func TestNewLoopNeedsAll(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, f := newStore(newWorld()), newTables(fine)
	for name, config := range map[string]reconcile.Config{
		"store":  {Tables: f, Log: log},
		"tables": {Store: s, Log: log},
		"logger": {Store: s, Tables: f},
	} {
		if _, err := reconcile.NewLoop(config); err == nil || !strings.Contains(strings.ToLower(err.Error()), name) {
			t.Errorf("without a %s the error is %v", name, err)
		}
	}
}
