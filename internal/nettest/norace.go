//go:build !race

package nettest

// detector is what the race detector is told, where there is one.
var detector map[string]string
