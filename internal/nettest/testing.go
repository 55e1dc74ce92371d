package nettest

import (
	"context"
	"testing"
	"time"
)

// testTimeout is how long one test may take in all.
const testTimeout = 3 * time.Minute

// Context is one that ends with the test, or when the test takes too long.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// Start makes a host with an agent that answers; the end of the test closes it and
// shows the agent's log if the test failed.
func Start(ctx context.Context, t testing.TB, c Config) *Host {
	t.Helper()
	h, err := NewHost(c)
	if err != nil {
		t.Fatal(err)
	}
	h.startIn(ctx, t)
	return h
}

// StartNeighbour starts another agent on a host; see Neighbour.
func StartNeighbour(ctx context.Context, t testing.TB, of *Host) *Host {
	t.Helper()
	h, err := of.Neighbour()
	if err != nil {
		t.Fatal(err)
	}
	h.startIn(ctx, t)
	return h
}

func (h *Host) startIn(ctx context.Context, t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.lastWords())
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := h.StartAgent(ctx); err != nil {
		t.Fatal(err)
	}
}

// Must ends the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Get is Must for a call with a result, as in Get[netip.Addr](t)(h.AllocateVIP(…)).
func Get[T any](t testing.TB) func(value T, err error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
