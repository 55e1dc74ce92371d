package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) MachineLogs(ctx context.Context, r MachineLogsRequestObject) (MachineLogsResponseObject, error) {
	if after := r.Params.After; after != "" {
		if _, err := time.Parse(time.RFC3339, after); err != nil {
			return nil, invalid("after", "after is %.40q, expected the time of a line as timestamps=true writes it", after)
		}
	}
	m, err := o.inside(ctx, r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	return &logStream{ctx: ctx, server: o.Server, id: m.ID, query: LogQuery{
		Follow: r.Params.Follow, Stamped: r.Params.Timestamps, After: r.Params.After,
	}}, nil
}

// logStream answers with a Machine's output while it is read.
type logStream struct {
	ctx    context.Context
	server *Server
	id     string
	query  LogQuery
}

func (l *logStream) VisitMachineLogsResponse(w http.ResponseWriter) error {
	return stream(w, "text/plain; charset=utf-8", l.copy)
}

func (l *logStream) copy(out *flushWriter) error {
	if !l.query.Follow {
		return l.server.config.Machines.Logs(l.ctx, l.id, l.query, out)
	}
	// A Machine that was just created has no log before its first start.
	var exists bool
	err := l.server.follow(l.ctx, l.id, func(m state.Machine, found bool) bool {
		exists = found
		return m.State != state.Created
	})
	if err != nil || !exists {
		return err
	}
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	go func() {
		err := l.server.follow(ctx, l.id, func(m state.Machine, exists bool) bool { return !exists || ended(m) })
		if err == nil {
			err = errEnded
		}
		cancel(err)
	}()
	err = l.server.config.Machines.Logs(ctx, l.id, l.query, out)
	// An agent that stops ends the context too, and then this is not all there is.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errEnded) {
		return cause
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// errEnded is why logs are followed no longer: the Machine wrote the last of them.
var errEnded = errors.New("the Machine has ended")
