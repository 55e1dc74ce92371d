package flycast

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// FlowTable is the flow table as the pacer needs it: maps.Flows.
type FlowTable interface {
	Capacity() int // flows it can hold
	PageSize() int // flows that one Page looks at, at most
	Rewind()       // the next Page is the first
	Page() (judged int, done bool, err error)
}

// DefaultPeriod makes a flow stay at most this much longer than its timeout.
const DefaultPeriod = 5 * time.Second

// PacerConfig configures a Pacer.
type PacerConfig struct {
	Flows FlowTable
	// Period is the time from the start of one pass to the start of the next. A
	// full table is looked through in it at an even pace. 0: DefaultPeriod.
	Period time.Duration
	// OnPass, if set, is called after every pass with the number of flows it saw.
	OnPass func(judged int)
	Log    *slog.Logger
}

// Pacer has the flow table looked through again and again, in pages with pauses
// between them, so that no CPU is held for more than a few milliseconds.
type Pacer struct {
	config PacerConfig
	hurry  chan struct{}
}

// NewPacer checks the configuration.
func NewPacer(config PacerConfig) (*Pacer, error) {
	if config.Flows == nil {
		return nil, errors.New("flycast: PacerConfig.Flows is missing: give the flow table")
	}
	if config.Log == nil {
		return nil, errors.New("flycast: PacerConfig.Log is missing: give a logger")
	}
	if config.Period == 0 {
		config.Period = DefaultPeriod
	}
	return &Pacer{config: config, hurry: make(chan struct{}, 1)}, nil
}

// Hurry asks for a whole pass without pauses, from now on: a backend is gone. It does
// not block.
func (p *Pacer) Hurry() {
	select {
	case p.hurry <- struct{}{}:
	default: // the pass that was asked for has not begun
	}
}

// pause is the time between two pages: a full table takes three quarters of a period.
func (p *Pacer) pause() time.Duration {
	pages := p.config.Flows.Capacity()/max(p.config.Flows.PageSize(), 1) + 1
	return p.config.Period * 3 / 4 / time.Duration(pages)
}

// Run works until ctx ends; it returns nil then. A page that fails is logged, and its
// pass given up.
func (p *Pacer) Run(ctx context.Context) error {
	failing := false
	for hurry := false; ctx.Err() == nil; {
		began := time.Now()
		judged, hurried, err := p.pass(ctx, hurry)
		if (err != nil) != failing {
			failing = err != nil
			if failing {
				p.config.Log.Error("flows cannot be looked through: none expires", "error", err)
			} else {
				p.config.Log.Info("flows can be looked through again")
			}
		}
		if err == nil && !hurried && ctx.Err() == nil && p.config.OnPass != nil {
			p.config.OnPass(judged)
		}
		if hurry = hurried; !hurry {
			hurry = p.wait(ctx, max(p.pause(), p.config.Period-time.Since(began)))
		}
	}
	return nil
}

// pass looks the whole table through, without pauses in a hurry. hurried says that it
// ended early because somebody is in one now.
func (p *Pacer) pass(ctx context.Context, hurry bool) (judged int, hurried bool, err error) {
	p.config.Flows.Rewind()
	for ctx.Err() == nil {
		n, done, err := p.config.Flows.Page()
		judged += n
		if err != nil || done {
			return judged, false, err
		}
		if !hurry && p.wait(ctx, p.pause()) {
			return judged, true, nil
		}
	}
	return judged, false, nil
}

// wait returns after a time, or when ctx ends, or, with true, when somebody is in a
// hurry.
func (p *Pacer) wait(ctx context.Context, period time.Duration) (hurry bool) {
	timer := time.NewTimer(period)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-ctx.Done():
		return false
	case <-p.hurry:
		return true
	}
}
