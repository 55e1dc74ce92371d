package dns

import "time"

// Observer is told what the resolver does. Its methods are called from many
// goroutines, on the way of every query: they must not wait.
type Observer interface {
	// Answered is one query that was answered.
	Answered(Answered)
	// Exchanged is one question put to an upstream resolver, probes included.
	Exchanged(Exchanged)
	// Health is an upstream that is asked from now on, was found dead or looping
	// (up is false), or works again.
	Health(upstream string, up bool)
	// Forgotten is an upstream that is asked no more, since the configuration of the
	// host has changed.
	Forgotten(upstream string)
}

// Answered describes one answer.
type Answered struct {
	Type      uint16 // of the question; 0 if there was none
	Rcode     int    // of the reply, the EDNS part included
	Source    Source
	Transport string // "udp", "tcp" or "api"
	Duration  time.Duration
}

// Exchanged describes one exchange with an upstream resolver.
type Exchanged struct {
	Upstream  string // address and port
	OK        bool   // an acceptable answer came, of whatever rcode
	Transport string // "udp" or "tcp"
	Duration  time.Duration
}

// Source is where an answer comes from.
type Source string

// The sources.
const (
	SourceInternal Source = "internal" // a name below .internal
	SourceFlycast  Source = "flycast"  // a name below .flycast
	SourceReverse  Source = "reverse"  // the name of an address of fdaa::/16
	SourceLocal    Source = "local"    // localhost and the like
	SourceForward  Source = "forward"  // an upstream resolver, or that none answered
	SourceCache    Source = "cache"    // what one answered before
	SourceRefused  Source = "refused"  // a message that is no question to answer
)
