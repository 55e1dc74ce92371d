package flycast_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn/flycast"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// table is a flow table of so many pages.
type table struct {
	mu    sync.Mutex
	pages int
	next  int
	calls int
	fail  error
	begun chan struct{} // one for every first page
}

func (f *table) Capacity() int { return 100 * f.pages }
func (f *table) PageSize() int { return 100 }

func (f *table) Rewind() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = 0
}

func (f *table) Page() (int, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == 0 && f.begun != nil {
		select {
		case f.begun <- struct{}{}:
		default:
		}
	}
	f.calls++
	if f.fail != nil {
		return 0, false, f.fail
	}
	f.next++
	if f.next == f.pages {
		f.next = 0
		return 50, true, nil
	}
	return 100, false, nil
}

// run starts a pacer; its passes come by the channel.
func run(t *testing.T, f *table, period time.Duration) (*flycast.Pacer, <-chan int) {
	t.Helper()
	passes := make(chan int, 1000)
	pacer, err := flycast.NewPacer(flycast.PacerConfig{
		Flows: f, Period: period, Log: quiet,
		OnPass: func(judged int) { passes <- judged },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- pacer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("a pacer whose context ended: %v", err)
		}
	})
	return pacer, passes
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(10 * time.Second):
		t.Fatalf("within 10 s there was no %s", what)
		panic("not reached")
	}
}

func TestPacerPasses(t *testing.T) {
	t.Parallel()
	began := time.Now()
	const period = 40 * time.Millisecond
	_, passes := run(t, &table{pages: 4}, period)
	for range 3 {
		if judged := receive(t, passes, "pass"); judged != 350 {
			t.Errorf("a pass saw %d flows, want 350", judged)
		}
	}
	// Two whole periods, and the pauses of the third pass.
	if took := time.Since(began); took < 2*period {
		t.Errorf("three passes took %v: they are not paced", took)
	}
}

// In a hurry there are no pauses: with a period of an hour a pass would take most of it.
func TestPacerHurries(t *testing.T) {
	t.Parallel()
	flows := &table{pages: 50, begun: make(chan struct{}, 1)}
	pacer, passes := run(t, flows, time.Hour)
	receive(t, flows.begun, "first page") // in the middle of a slow pass
	pacer.Hurry()
	if judged := receive(t, passes, "pass"); judged != 4950 {
		t.Errorf("a pass in a hurry saw %d flows, want all 4950", judged)
	}
	pacer.Hurry() // between two passes
	receive(t, passes, "second pass")
}

func TestPacerGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	flows := &table{pages: 2, fail: errors.New("no"), begun: make(chan struct{}, 1)}
	pacer, passes := run(t, flows, time.Hour)
	receive(t, flows.begun, "first page")
	flows.mu.Lock()
	flows.fail = nil
	flows.mu.Unlock()
	pacer.Hurry()
	receive(t, passes, "pass")
}

func TestPacerNeedsATable(t *testing.T) {
	t.Parallel()
	if _, err := flycast.NewPacer(flycast.PacerConfig{Log: quiet}); err == nil {
		t.Error("a pacer without a table was made")
	}
	if _, err := flycast.NewPacer(flycast.PacerConfig{Flows: &table{}}); err == nil {
		t.Error("a pacer without a logger was made")
	}
}
