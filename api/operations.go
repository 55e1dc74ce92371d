package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sixpn/sixpn/state"
)

// operations has a method for each operationId of the document.
type operations struct{ *Server }

var _ StrictServerInterface = (*operations)(nil)

// written is the end of every write: it waits until this agent's own snapshot has
// the revision, so that a client reads what it wrote, and with wait=applied until
// the data plane has it too.
func (s *Server) written(ctx context.Context, revision int64, wait WaitFor) error {
	readBack, cancel := context.WithTimeout(ctx, s.config.ReadBack)
	defer cancel()
	// The write is durable, so a snapshot that is late is no failure.
	_, _ = s.config.Store.Wait(readBack, revision-1)
	if wait != WaitForApplied {
		return ctx.Err()
	}
	apply, cancel := context.WithTimeout(ctx, s.config.ApplyTimeout)
	defer cancel()
	if err := s.config.DataPlane.Applied(apply, revision); err != nil {
		return refuse(http.StatusGatewayTimeout, StatusDeadline, "wait",
			"the change is durable as revision %d, but the data plane does not have it yet: %v", revision, err)
	}
	return nil
}

// checkWait is called before the write, so that a refused request changes nothing.
func checkWait(wait WaitFor) error {
	if wait == "" || wait.Valid() {
		return nil
	}
	return invalid("wait", "wait is %q, expected applied, true or false", string(wait))
}

// app finds an app by the name in a path.
func (s *Server) app(snapshot *state.Snapshot, name string) (state.App, error) {
	app, ok := snapshot.Apps[name]
	if !ok {
		return state.App{}, notFound("app_name", "there is no app %q; create it with: sixpn apps create %s", name, name)
	}
	return app, nil
}

// machine finds a Machine of an app.
func (s *Server) machine(snapshot *state.Snapshot, app, id string) (state.Machine, error) {
	if _, err := s.app(snapshot, app); err != nil {
		return state.Machine{}, err
	}
	m, ok := snapshot.Machines[id]
	if !ok || m.App != app {
		return state.Machine{}, noMachine(app, id)
	}
	return m, nil
}

func noMachine(app, id string) error {
	return notFound("machine_id", "app %s has no Machine %q; list them with: sixpn machine list -a %s", app, id, app)
}

type queryKey struct{}

// keepQuery hands the query to operations whose parameters have open names.
func keepQuery(next StrictHandlerFunc, _ string) StrictHandlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		return next(context.WithValue(ctx, queryKey{}, r.URL.Query()), w, r, request)
	}
}

func queryOf(ctx context.Context) url.Values {
	query, _ := ctx.Value(queryKey{}).(url.Values)
	return query
}
