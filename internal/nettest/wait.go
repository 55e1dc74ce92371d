package nettest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	patience = time.Minute // how long a condition may take, unless ctx says less
	interval = 10 * time.Millisecond
	// slownessVariable is how many times slower than usual this machine is, such as 10
	// for an emulated one: every limit of a test is that much longer.
	slownessVariable = "SIXPN_TEST_SLOWNESS"
)

// Slow is a limit on this machine.
func Slow(limit time.Duration) time.Duration {
	factor, err := strconv.Atoi(os.Getenv(slownessVariable))
	if err != nil || factor < 1 {
		return limit
	}
	return limit * time.Duration(factor)
}

// final marks an error that no waiting will change.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// Final makes Eventually give up at once.
func Final(err error) error { return final{err} }

// Eventually calls condition until it returns nil, and says what it returned last
// when that takes too long.
func Eventually(ctx context.Context, what string, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, Slow(patience))
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		// An error that is only the end of the wait says less than the one before.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if done := (final{}); errors.As(err, &done) {
			return fmt.Errorf("%s: %w", what, done.error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s: %w", what, last)
		case <-ticker.C:
		}
	}
}
