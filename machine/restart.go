package machine

import (
	"fmt"
	"time"

	"github.com/sixpn/sixpn/state"
)

// Backoff is the pause before a Machine that ended by itself is started again:
// Initial, doubled each time, at most Max, from the beginning again after a run
// of at least Stable.
type Backoff struct {
	Initial, Max, Stable time.Duration // default 1 s, 1 min, 10 s
}

func (b *Backoff) setDefaults() {
	setDefault(&b.Initial, time.Second)
	setDefault(&b.Max, time.Minute)
	setDefault(&b.Stable, 10*time.Second)
}

// pause before start number attempt by policy, counted from 1.
func (b Backoff) pause(attempt int) time.Duration {
	pause := b.Initial
	for range attempt - 1 {
		if pause >= b.Max {
			break
		}
		pause *= 2
	}
	return min(pause, b.Max)
}

// lastRun is how a Machine's latest run ended.
type lastRun struct {
	instance string        // of the record, when it was started
	attempt  int           // how many starts by policy led to it, since a stable run
	code     int           // its exit code
	failed   bool          // the command could not be run at all
	lost     bool          // its supervisor or the host went down with it
	rebooted bool          // the host did
	lasted   time.Duration // how long it ran, 0 if that is not known
	message  string        // for people
}

// decision is what a Machine that shall be started, and does not run, gets.
type decision struct {
	start   bool
	pause   time.Duration // before it is started
	attempt int           // of the run that is started
	gaveUp  bool          // its retries are used up
}

// decide applies a restart policy. A new instance id in the record is a new
// command to start, which no policy holds up; last nil means it never ran. A
// run that the host's end cut off counts as failed, but not as a retry.
// MaxRetries 0 is without limit.
func decide(instance string, policy state.Restart, last *lastRun, b Backoff) decision {
	if last == nil || last.instance != instance {
		return decision{start: true}
	}
	failed := last.code != 0 || last.failed || last.lost
	if !policy.Again(failed) {
		return decision{}
	}
	if last.rebooted {
		return decision{start: true}
	}
	attempt := last.attempt + 1
	if last.lasted >= b.Stable {
		attempt = 1
	}
	if policy.MaxRetries > 0 && attempt > policy.MaxRetries {
		return decision{gaveUp: true}
	}
	return decision{start: true, pause: b.pause(attempt), attempt: attempt}
}

// describe says what the record's Message says after a run has ended.
func (l lastRun) describe(d decision) string {
	message := l.message
	if message == "" && l.code != 0 {
		message = fmt.Sprintf("it ended with exit code %d", l.code)
	}
	join := func(s string) string {
		if message == "" {
			return s
		}
		return message + "; " + s
	}
	switch {
	case d.gaveUp:
		return join(fmt.Sprintf("not started again after %d attempts", l.attempt))
	case d.start && d.pause > 0:
		return join(fmt.Sprintf("started again in %v", d.pause))
	}
	return message
}
