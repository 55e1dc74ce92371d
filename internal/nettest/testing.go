package nettest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// testTimeout is how long one test may take in all.
const testTimeout = 6 * time.Minute

// Context is one that ends with the test, or when the test takes too long.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Slow(testTimeout))
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

// EndTraffic stops a Machine that runs the payload "traffic", and demands that
// nothing of it was lost.
func EndTraffic(ctx context.Context, t testing.TB, m *Machine) {
	t.Helper()
	Must(t, m.Stop(ctx))
	Must(t, m.Wait(ctx, "stopped"))
	log := Get[string](t)(m.Logs(ctx))
	_, text, ok := strings.Cut(log, "result ")
	if !ok {
		t.Fatalf("the traffic left no result, its log is %q", log)
	}
	var seen payload.Traffic
	Must(t, json.Unmarshal([]byte(text), &seen))
	t.Logf("traffic: %v", &seen)
	for name, n := range seen.Numbered {
		if n.Missing > 0 || n.Repeated > 0 || n.Error != "" || n.Sent == 0 {
			t.Errorf("datagrams, %s: %+v (%d lost by full sockets)", name, *n, seen.Overflows)
		}
	}
	for name, s := range seen.Streams {
		if s.Back != s.Sent || s.Sent == 0 || s.Error != "" {
			t.Errorf("stream, %s: %+v", name, *s)
		}
	}
	for name, o := range seen.Opened {
		if o.Failed > 0 || o.OK == 0 {
			t.Errorf("new connections, %s: %+v", name, *o)
		}
	}
}
