// Package bench measures the packet path: the router's programs alone, live frames,
// and TCP, each beside a baseline in the same run. docs/performance.md explains the
// method and holds the tables.
package bench

import (
	"context"
	"fmt"
	"time"
)

// Config says how long to measure.
type Config struct {
	Quick    bool         // under a minute
	Progress func(string) // told what is being measured; may be nil
}

// Rounds are pairs of value and baseline. There are at least ten of each.
type effort struct {
	packetRounds, packetRepeats int
	liveRounds, liveFrames      int
	tcpRounds                   int
	tcpEach                     time.Duration
}

var (
	quick    = effort{packetRounds: 11, packetRepeats: 300_000, liveRounds: 11, liveFrames: 150_000, tcpRounds: 11, tcpEach: 250 * time.Millisecond}
	thorough = effort{packetRounds: 21, packetRepeats: 2_000_000, liveRounds: 21, liveFrames: 1_000_000, tcpRounds: 21, tcpEach: time.Second}
)

// Run measures everything. It needs root, and leaves nothing behind.
func Run(ctx context.Context, config Config) ([]Result, error) {
	e := thorough
	if config.Quick {
		e = quick
	}
	progress := config.Progress
	if progress == nil {
		progress = func(string) {}
	}
	return run(ctx, e, progress)
}

func run(ctx context.Context, e effort, progress func(string)) ([]Result, error) {
	packets, err := measurePackets(ctx, e.packetRounds, e.packetRepeats, progress)
	if err != nil {
		return nil, fmt.Errorf("measure packets: %w", err)
	}
	live, err := measureLive(ctx, e.liveRounds, e.liveFrames, progress)
	if err != nil {
		return nil, fmt.Errorf("measure live frames: %w", err)
	}
	tcp, err := measureTCP(ctx, e.tcpRounds, e.tcpEach, progress)
	if err != nil {
		return nil, fmt.Errorf("measure TCP: %w", err)
	}
	return append(append(packets, live...), tcp...), nil
}
