//go:build race

package nettest

// The race detector waits a second at the end of every process, for races that are
// just being reported; a host runs hundreds of short ones.
var detector = map[string]string{"GORACE": "atexit_sleep_ms=0"}

// RaceSlowness is how many times longer an agent takes for what it does at its start, such
// as to load programs, with the race detector and beside other tests.
const RaceSlowness = 3
