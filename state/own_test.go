package state_test

import (
	"encoding/json"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/state"
)

// TestALostHostCannotReassertItsRecords: its lease expired, others went on without it,
// and it comes back with what it knew.
func TestALostHostCannotReassertItsRecords(t *testing.T) {
	t.Parallel()
	started := func(m *state.Machine) error { m.State = state.Started; return nil }
	for name, row := range map[string]struct {
		meanwhile func(w clientWorld, m state.Machine) error
		kind      state.ErrorKind // 0: not refused
		field     string
	}{
		"nothing happened": {func(clientWorld, state.Machine) error { return nil }, 0, ""},
		"its Machine was destroyed": {func(w clientWorld, m state.Machine) error {
			_, err := w.DestroyMachine(t.Context(), m.ID)
			return err
		}, state.NotFound, "id"},
		"it was removed": {func(w clientWorld, _ state.Machine) error {
			_, err := w.RemoveHost(t.Context(), w.host.ID, true)
			return err
		}, state.NotFound, "id"},
		"its Machine is on another host": {func(w clientWorld, m state.Machine) error {
			m.Host++
			encoded, err := json.Marshal(m)
			must(t, err)
			_, err = w.client.Put(t.Context(), "/sixpn/v1/networks/00000001/machines/"+m.ID, string(encoded))
			return err
		}, state.Conflict, "host"},
		"its record alone was lost": {func(w clientWorld, _ state.Machine) error {
			_, err := w.client.Delete(t.Context(), "/sixpn/v1/hosts/"+hex8(w.host.ID)+"/host")
			return err
		}, state.NotFound, "host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := startClosing(t, directory(t))
			s := open(t, e)
			run(t, s)
			w := clientWorld{populate(t, s), e.Client()}
			m := w.machine(t, "web-1")
			must(t, row.meanwhile(w, m))
			before := w.Snapshot()
			_, revision, err := w.UpdateOwnMachine(within(t), w.host.ID, m.ID, started)
			if row.kind == 0 {
				must(t, err)
				at(t, w.Store, revision)
				_, _, err = w.UpdateOwnMachine(within(t), w.host.ID, m.ID, func(m *state.Machine) error { m.State = state.Stopped; return nil })
				must(t, err)
				_, err = w.DestroyOwnMachine(within(t), w.host.ID, m.ID)
				must(t, err)
				return
			}
			refused(t, err, row.kind, row.field)
			_, err = w.DestroyOwnMachine(within(t), w.host.ID, m.ID)
			refused(t, err, row.kind, row.field)
			_, next, err := w.CreateOrg(within(t), "next", "")
			must(t, err)
			if after := at(t, w.Store, next); after.Machines[m.ID].State == state.Started {
				t.Errorf("a refused write is there: %+v (before: %+v)", after.Machines[m.ID], before.Machines[m.ID])
			}
		})
	}
}

// clientWorld can also be written to past every rule.
type clientWorld struct {
	world
	client *clientv3.Client
}
