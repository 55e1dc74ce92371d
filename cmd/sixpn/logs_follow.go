package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sixpn/sixpn/api"
)

// logPlace is how far the output of a Machine was read. An agent that begins again has lost
// every reader's, but what it kept has the time of each line, so that the place is found
// again, also when the oldest lines were dropped meanwhile.
type logPlace struct {
	stamp string // time of the line that was read last
	lines int    // with that time, of which several may be, that were read whole
	bytes int    // of the line after these, which is being read
}

// longestPiece is how much of a line is shown at once.
const longestPiece = 64 << 10

// read gives show what body has after this place, line by line with their ends; a line
// longer than longestPiece in pieces. Of a line that breaks off it shows whole pieces
// only. The end of body is no error.
func (p *logPlace) read(body io.Reader, show func([]byte) error) error {
	lines := bufio.NewReaderSize(body, longestPiece)
	past, here := *p, logPlace{}
	for {
		stamp, err := lines.ReadString(' ')
		if errors.Is(err, io.EOF) && stamp == "" {
			return nil
		}
		if err != nil {
			return err
		}
		if stamp = stamp[:len(stamp)-1]; stamp != here.stamp {
			if past.stamp != stamp {
				past = logPlace{} // from here on all is new
			}
			here = logPlace{stamp: stamp}
		}
		for whole := false; !whole; {
			piece, err := lines.ReadSlice('\n')
			whole = err == nil
			last := errors.Is(err, io.EOF) // of a line that the host's crash cut short
			if !whole && !last && !errors.Is(err, bufio.ErrBufferFull) {
				return err
			}
			old := 0
			if here.stamp == past.stamp && here.lines < past.lines {
				old = len(piece)
			} else if here.stamp == past.stamp && here.lines == past.lines {
				old = min(len(piece), max(0, past.bytes-here.bytes))
			}
			if here.bytes += len(piece); whole {
				here.lines, here.bytes = here.lines+1, 0
			}
			if old < len(piece) {
				if err := show(piece[old:]); err != nil {
					return showError{err}
				}
				*p = here
			}
			if last {
				return nil
			}
		}
	}
}

// showError is that what was read could not be shown.
type showError struct{ error }

func (e showError) Unwrap() error { return e.error }

// follow gives show what a Machine writes after a place, until it has ended. When an
// agent goes away it goes on where it was, once that is back; not for longer than agents
// are waited for.
func (c *cli) follow(ctx context.Context, client *api.ClientWithResponses, app, id string, p *logPlace, show func([]byte) error) error {
	var since time.Time // when what is away went; zero: nothing is
	for first := true; ; first = false {
		before := *p
		err := c.followOnce(ctx, client, app, id, p, show)
		if *p != before {
			first, since = false, time.Time{}
		}
		switch {
		case err == nil, ctx.Err() != nil, !goesOn(err), first && !errors.As(err, new(*brokenOff)):
			return err
		case since.IsZero():
			since = time.Now()
			c.say("The logs of Machine %s broke off, since an agent has stopped; going on when it is back", id)
		case time.Since(since) > c.patience:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.poll):
		}
	}
}

func (c *cli) followOnce(ctx context.Context, client *api.ClientWithResponses, app, id string, p *logPlace, show func([]byte) error) error {
	// The generated method with "WithResponse" would read to the end first.
	answer, err := client.MachineLogs(ctx, app, id, &api.MachineLogsParams{Follow: true, Timestamps: true, After: p.stamp})
	if err := api.CheckResponse(answer, err); err != nil {
		return err
	}
	defer answer.Body.Close()
	err = p.read(answer.Body, show)
	if err == nil || errors.As(err, new(showError)) {
		return err
	}
	return brokeOff(id, err)
}

// goesOn is whether an error may be over when an agent is back.
func goesOn(err error) bool {
	var answered *api.Error
	if errors.As(err, &answered) {
		return answered.Code == http.StatusServiceUnavailable
	}
	return !errors.As(err, new(showError))
}

// say tells people what is going on.
func (c *cli) say(format string, args ...any) {
	c.saying.Lock()
	defer c.saying.Unlock()
	fmt.Fprintf(c.err, format+"\n", args...)
}

// brokenOff is that logs ended before they were complete.
type brokenOff struct {
	id    string
	cause error
}

func (e *brokenOff) Error() string {
	if errors.Is(e.cause, io.ErrUnexpectedEOF) {
		return fmt.Sprintf("the logs of Machine %s broke off: the agent stopped; try again when it is back", e.id)
	}
	return fmt.Sprintf("the logs of Machine %s broke off: %v", e.id, e.cause)
}

func (e *brokenOff) Unwrap() error { return e.cause }

func brokeOff(id string, err error) error { return &brokenOff{id, err} }
