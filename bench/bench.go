// Package bench measures the packet path (the router's programs alone, live frames, TCP
// on one host and between two), the way of a change to other hosts, what a host of a
// larger fleet keeps, and the resolver, each beside a baseline in the same run. docs/performance.md explains the
// method and holds the tables.
package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config says what to measure and how long.
type Config struct {
	Quick    bool         // about a minute
	Only     []string     // of Subjects; empty: all
	CoreDNS  string       // its program; "" finds it beside this one or in PATH
	Progress func(string) // told what is being measured; may be nil
}

// Subjects are the groups of measurements, in their order.
var Subjects = []string{"packet", "live", "tcp", "mesh", "propagation", "growth", "dns"}

// effort is how much is measured. Rounds are pairs of value and baseline, at least
// ten of each.
type effort struct {
	packetRounds, packetRepeats int
	liveRounds, liveFrames      int
	tcpRounds                   int
	tcpEach                     time.Duration
	meshRounds                  int
	meshEach                    time.Duration
	changes                     int
	sizes                       []int // of simulated fleets in a store, hosts
	fed                         []int // of larger ones
	compiles                    int
	dnsRounds                   int
	dnsEach                     time.Duration
}

var (
	quick = effort{
		packetRounds: 11, packetRepeats: 300_000, liveRounds: 11, liveFrames: 150_000, tcpRounds: 11, tcpEach: 250 * time.Millisecond,
		meshRounds: 41, meshEach: 200 * time.Millisecond, changes: 200, sizes: []int{10, 100}, compiles: 11,
		dnsRounds: 11, dnsEach: 200 * time.Millisecond,
	}
	thorough = effort{
		packetRounds: 21, packetRepeats: 2_000_000, liveRounds: 21, liveFrames: 1_000_000, tcpRounds: 21, tcpEach: time.Second,
		meshRounds: 101, meshEach: 500 * time.Millisecond, changes: 1000, sizes: []int{10, 100, 1000}, fed: []int{10_000}, compiles: 21,
		dnsRounds: 21, dnsEach: time.Second,
	}
)

// Run measures. It needs root, and leaves nothing behind.
func Run(ctx context.Context, config Config) ([]Result, error) {
	for _, subject := range config.Only {
		if !slices.Contains(Subjects, subject) {
			return nil, fmt.Errorf("there is no measurement %q: expected some of %s", subject, strings.Join(Subjects, ", "))
		}
	}
	e := thorough
	if config.Quick {
		e = quick
	}
	if config.Progress == nil {
		config.Progress = func(string) {}
	}
	return run(ctx, e, config)
}

func run(ctx context.Context, e effort, config Config) (all []Result, err error) {
	progress := config.Progress
	measure := map[string]func() ([]Result, error){
		"packet":      func() ([]Result, error) { return measurePackets(ctx, e.packetRounds, e.packetRepeats, progress) },
		"live":        func() ([]Result, error) { return measureLive(ctx, e.liveRounds, e.liveFrames, progress) },
		"tcp":         func() ([]Result, error) { return measureTCP(ctx, e.tcpRounds, e.tcpEach, progress) },
		"mesh":        func() ([]Result, error) { return measureMesh(ctx, e.meshRounds, e.meshEach, progress) },
		"propagation": func() ([]Result, error) { return measurePropagation(ctx, e.changes, progress) },
		"growth":      func() ([]Result, error) { return measureGrowth(ctx, e.sizes, e.fed, e.compiles, progress) },
		"dns":         func() ([]Result, error) { return measureDNS(ctx, e, config.CoreDNS, progress) },
	}
	for _, subject := range Subjects {
		if len(config.Only) > 0 && !slices.Contains(config.Only, subject) {
			continue
		}
		results, err := measure[subject]()
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", subject, err)
		}
		all = append(all, results...)
	}
	return all, nil
}
