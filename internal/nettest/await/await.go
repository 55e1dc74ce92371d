// Package await is patience for tests of every room: it needs none of them.
package await

import (
	"context"
	"testing"
	"time"
)

// Limit is how long a test waits for what must come.
const Limit = time.Minute

// Context is one that ends with the test, or after Limit.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	t.Cleanup(cancel)
	return ctx
}

// True ends the test unless a condition comes to hold.
func True(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(Limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited %v in vain: %s", Limit, what)
		case <-tick.C:
		}
	}
}
