package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/state"
)

// calm is a file whose presence ends what Machines do by themselves.
func (w *world) calm() string { return filepath.Join(w.Dir, "calm") }

func (w *world) calmDown() error { return os.WriteFile(w.calm(), nil, 0o644) }

// killAtRest kills the agent while it has nothing left to do, and returns the state
// that it left. Should a check have said something else at the last moment, as those
// of Machines that had not calmed down may, then that moment was none.
func killAtRest(ctx context.Context, t *testing.T, w *world, flows *prober) *state.Snapshot {
	t.Helper()
	for {
		revision := awaitRest(ctx, t, w)
		nettest.Must(t, flows.all(ctx))
		nettest.Must(t, w.KillAgent())
		if left := stored(ctx, t, w); left.Revision == revision {
			return left
		}
		nettest.Must(t, w.StartAgent(ctx))
	}
}

// stored is the state that a killed agent left.
func stored(ctx context.Context, t *testing.T, w *world) *state.Snapshot {
	t.Helper()
	embedded := nettest.Get[*state.Embedded](t)(state.StartEmbedded(ctx, state.EmbeddedConfig{
		Dir: filepath.Join(w.StateDir(), "store"), Log: slog.New(slog.DiscardHandler),
	}))
	defer func() { nettest.Must(t, embedded.Close()) }()
	return nettest.Get[*state.Store](t)(state.Open(ctx, embedded.Client(), slog.New(slog.DiscardHandler))).Snapshot()
}

// awaitRest waits until all that was ordered is done and nothing waits to be tidied
// up, and returns the state's revision of then.
func awaitRest(ctx context.Context, t *testing.T, w *world) (revision int64) {
	t.Helper()
	// The agent's own store, asked beside it: the API does not tell what is desired.
	client := nettest.Get[*clientv3.Client](t)(clientv3.New(clientv3.Config{
		Context: ctx, Endpoints: []string{"unix://" + filepath.Join(w.StateDir(), "store", "etcd.sock")}, Logger: zap.NewNop(),
	}))
	defer client.Close()
	tables := openTables(t, w)
	nettest.Must(t, nettest.Eventually(ctx, "all orders are done", func(ctx context.Context) error {
		store, err := state.Open(ctx, client, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		snapshot := store.Snapshot()
		for _, m := range snapshot.Machines {
			if err := rests(m); err != nil {
				return err
			}
		}
		status, err := w.Status(ctx)
		if err != nil {
			return err
		}
		if r := status.Revision; r.Wanted != snapshot.Revision || r.Applied != r.Wanted || status.Agent.Message != "" {
			return fmt.Errorf("the store is at revision %d, the tables say %+v %s", snapshot.Revision, r, status.Agent.Message)
		}
		revision = snapshot.Revision
		return errors.Join(tidy(tables, snapshot), asWanted(ctx, w, tables, snapshot))
	}))
	return revision
}

// asWanted says what the tables have yet to become, or to free: all of it, where tidy
// says of some what it is.
func asWanted(ctx context.Context, w *world, tables *kernelTables, snapshot *state.Snapshot) error {
	want, err := wanted(ctx, w, tables, snapshot)
	if err != nil {
		return err
	}
	fresh, err := maps.Open(&tables.maps, maps.Options{Maglev: flycast.Maglev})
	if err != nil {
		return err
	}
	over, cancel := context.WithCancel(ctx)
	cancel() // lets nothing be written
	changes, err := fresh.Sync(over, want)
	if err == nil && changes.Waiting > 0 {
		err = fmt.Errorf("the tables have yet to free %d regions, backends or quotas", changes.Waiting)
	}
	return err
}

// rests says what a Machine has yet to become.
func rests(m state.Machine) error {
	want := m.Desired
	if (want == state.Started || want == state.Suspended) && !serves(m) {
		want = state.Stopped // it has ended by itself
	}
	if want == state.Stopped && m.State == state.Created {
		return nil // it never was to run
	}
	if m.State != want {
		return fmt.Errorf("machine %s (%s) is %s and not %s: %s", m.ID, m.App, m.State, want, m.Message)
	}
	if m.Desired == state.Started && m.Pending == m.InstanceID {
		return fmt.Errorf("machine %s (%s) is %s, but its start is still to come", m.ID, m.App, m.State)
	}
	return nil
}

// serves says whether a Machine's command lasts.
func serves(m state.Machine) bool { return !slices.Contains(m.Config.Init.Exec, "environment") }

// running are the ids of the Machines that are connected, in order: those that run,
// and those that stand still.
func running(s *state.Snapshot) (ids []string) {
	for id, m := range s.Machines {
		if m.State == state.Started || m.State == state.Suspended {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// tidy says what a later Sync has yet to free.
func tidy(tables *kernelTables, snapshot *state.Snapshot) error {
	loads, err := tables.Loads()
	if err != nil {
		return err
	}
	for _, load := range loads {
		if load.Gone {
			return fmt.Errorf("backend %d of machine %s is gone and not free, %d flows count in it", load.Index, load.Machine, load.Live)
		}
	}
	quotas, err := tables.QuotaUses()
	if err != nil {
		return err
	}
	wanted := map[client]bool{}
	for _, id := range running(snapshot) {
		m := snapshot.Machines[id]
		wanted[client{m.Network, m.Number}], wanted[client{m.Network, 0}] = true, true
	}
	for _, quota := range quotas {
		if who := (client{quota.Network, quota.Machine}); !wanted[who] {
			return fmt.Errorf("the quota of machine %s of network %s, which does not run, is not free: %d flows count in it, %s",
				quota.Machine, quota.Network, quota.Used, tables.flowsOf(who))
		}
	}
	return nil
}
