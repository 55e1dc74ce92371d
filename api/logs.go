package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/sixpn/sixpn/state"
)

func (o *operations) MachineLogs(ctx context.Context, r MachineLogsRequestObject) (MachineLogsResponseObject, error) {
	m, err := o.machine(o.config.Store.Snapshot(), r.AppName, r.MachineID)
	if err != nil {
		return nil, err
	}
	return &logStream{ctx: ctx, server: o.Server, id: m.ID, follow: r.Params.Follow}, nil
}

// logStream answers with a Machine's output while it is read.
type logStream struct {
	ctx    context.Context
	server *Server
	id     string
	follow bool
}

func (l *logStream) VisitMachineLogsResponse(w http.ResponseWriter) error {
	out := &flushWriter{w: w, control: http.NewResponseController(w)}
	err := l.copy(out)
	if err == nil {
		_, err = out.Write(nil)
	}
	if err != nil && out.begun {
		// Too late for an error answer: cut the connection, so that the client does
		// not take what it has for all there is.
		panic(http.ErrAbortHandler)
	}
	return err
}

func (l *logStream) copy(out *flushWriter) error {
	if !l.follow {
		return l.server.config.Machines.Logs(l.ctx, l.id, false, out)
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
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	go func() {
		_ = l.server.follow(ctx, l.id, func(m state.Machine, exists bool) bool { return !exists || ended(m) })
		cancel()
	}()
	err = l.server.config.Machines.Logs(ctx, l.id, true, out)
	if errors.Is(err, context.Canceled) && l.ctx.Err() == nil {
		return nil
	}
	return err
}

// flushWriter sends everything at once, and the header with the first of it.
type flushWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (f *flushWriter) Write(b []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		f.w.WriteHeader(http.StatusOK)
	}
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, f.control.Flush()
}
