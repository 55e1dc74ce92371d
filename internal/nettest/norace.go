//go:build !race

package nettest

// detector is what the race detector is told, where there is one.
var detector map[string]string

// RaceSlowness is how many times longer an agent takes for its start because of the race
// detector.
const RaceSlowness = 1
