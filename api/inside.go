package api

import (
	"context"

	"github.com/sixpn/sixpn/state"
)

// inside finds a Machine that is to be reached inside, which only its own host can.
func (s *Server) inside(ctx context.Context, app, id string) (state.Machine, error) {
	return s.here(ctx, app, id, func(state.Machine) error { return nil })
}

// started is inside for what needs a run that goes on.
func (s *Server) started(ctx context.Context, app, id string) (state.Machine, error) {
	return s.here(ctx, app, id, func(m state.Machine) error {
		if m.State != state.Started {
			return notReady("Machine %s is %s, expected started; start it with: sixpn machine start %s", m.ID, m.State, m.ID)
		}
		return nil
	})
}

func (s *Server) here(ctx context.Context, app, id string, check func(state.Machine) error) (state.Machine, error) {
	return latest(ctx, s, func(snapshot *state.Snapshot) (state.Machine, error) {
		m, err := s.machine(snapshot, app, id)
		switch {
		case err != nil:
			return m, err
		case m.Host != s.config.Host:
			return m, &elsewhere{m.Host}
		}
		return m, check(m)
	})
}

// latest looks at a snapshot, and, if that does not have what another host's agent knows
// already, at a newer one.
func latest[T any](ctx context.Context, s *Server, look func(*state.Snapshot) (T, error)) (T, error) {
	found, err := look(s.config.Store.Snapshot())
	if err != nil && s.catchUp(ctx) {
		return look(s.config.Store.Snapshot())
	}
	return found, err
}
