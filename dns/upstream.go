package dns

import (
	"context"
	"sync"
	"time"

	miekg "github.com/miekg/dns"
)

// health is whether an upstream is asked.
type health int

const (
	up health = iota
	down
	looping
)

// upstream is one resolver of the host.
type upstream struct {
	of      *upstreams
	address string          // and port
	ctx     context.Context // ends when it is asked no more
	cancel  context.CancelFunc

	mu       sync.Mutex
	health   health
	failures int  // one after the other
	reviving bool // somebody probes it until it works
	echoed   bool // the last probe came back as a question
}

func (u *upstream) state() health {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.health
}

// exchange puts a question, and learns from it how the upstream is.
func (u *upstream) exchange(ctx context.Context, asked key) (*miekg.Msg, error) {
	message, err := u.ask(ctx, asked)
	switch {
	case err == nil:
		u.works()
	case ctx.Err() == nil: // it had its time
		u.fails(err)
	}
	return message, err
}

func (u *upstream) works() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failures = 0
	if u.health == down {
		u.become(up, "it answers again")
	}
}

func (u *upstream) fails(why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failures++
	if u.health == up && u.failures >= u.of.config.Failures {
		u.become(down, why.Error())
	}
}

// loops is called when a question comes back from where it was sent to.
func (u *upstream) loops() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.echoed = true
	if u.health != looping {
		u.become(looping, "it asks this resolver the names that it is asked by it")
	}
}

// become changes the health, tells of it, and sees that a bad one is looked at
// again. The caller holds the lock.
func (u *upstream) become(h health, why string) {
	u.health = h
	if h == up {
		u.of.log.Info("an upstream resolver works", "upstream", u.address, "reason", why)
	} else {
		u.of.log.Warn("an upstream resolver does not work", "upstream", u.address, "reason", why)
	}
	if u.of.observer != nil {
		u.of.observer.Health(u.address, h == up)
	}
	if h != up && !u.reviving {
		u.reviving = true
		u.of.tasks.start(u.revive)
	}
}

// revive probes a bad upstream, ever more rarely, until it is a good one.
func (u *upstream) revive() {
	wait := u.of.config.ProbeFirst
	for {
		select {
		case <-u.ctx.Done():
			return
		case <-time.After(wait):
		}
		u.probe()
		u.mu.Lock()
		if u.health == up {
			u.reviving = false
			u.mu.Unlock()
			return
		}
		u.mu.Unlock()
		wait = min(2*wait, u.of.config.ProbeLast)
	}
}

// probe asks for a name of its own. One that looped is good again once an answer
// comes and the question does not.
func (u *upstream) probe() {
	name, forget := u.of.probeName(u)
	defer forget()
	u.mu.Lock()
	u.echoed = false
	u.mu.Unlock()
	_, err := u.exchange(u.ctx, key{name: name, rrtype: miekg.TypeA})
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil && u.health == looping && !u.echoed {
		u.become(up, "its questions do not come back any more")
	}
}
