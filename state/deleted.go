package state

import (
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

// How many Machines that are no more a network keeps, and for how long. Both are
// held by whatever destroys the next Machine of the network.
const (
	MaxDeleted = 256
	DeletedAge = 7 * 24 * time.Hour
)

// deletedMachine is where a snapshot has one. A destroyed Machine's id may be used
// again by a client that chooses it.
type deletedMachine struct{ app, id string }

// Deleted is the Machines that an app had, the latest first, in the state Destroyed:
// those of the last DeletedAge, as far as its network has room for them. An app that
// moves, or is created again, has none of before.
func (s *Snapshot) Deleted(app string) []Machine {
	var machines []Machine
	oldest := time.Now().Add(-DeletedAge)
	for _, id := range s.appDeleted[app] {
		if m := s.deleted[deletedMachine{app, id}]; m.UpdatedAt.After(oldest) {
			machines = append(machines, m)
		}
	}
	slices.SortStableFunc(machines, func(a, b Machine) int { return b.UpdatedAt.Compare(a.UpdatedAt) })
	return machines
}

// bury keeps the record of a Machine that is removed.
func (t *transaction) bury(r Record[Machine]) error {
	before, m := r.Value, &r.Value
	m.Desired, m.State, m.UpdatedAt = Destroyed, Destroyed, now()
	m.Pending, m.Lease, m.Checks, m.Relayed = "", nil, nil, nil
	m.Events = eventsOf(before, *m, sourceHost)
	if err := t.pruneDeleted(m.Network); err != nil {
		return err
	}
	return write(t, keyDeleted(m.Network, m.App, m.ID), r)
}

// pruneDeleted makes room for one more. It reads without a guard, so that Machines
// that are destroyed at once do not hold each other up: together they may go over the
// limit, and the next one takes back what they did.
func (t *transaction) pruneDeleted(n sixpn.Network) error {
	const atOnce = 2 * MaxDeleted // the rest waits for the next one
	kept, err := t.read(keyNetworkDeleted(n), clientv3.WithPrefix(), clientv3.WithLimit(atOnce),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend))
	if err != nil {
		return err
	}
	excess := int(kept.Count) - MaxDeleted + 1
	oldest := now().Add(-DeletedAge)
	for i, kv := range kept.Kvs {
		if i >= excess {
			r, err := Decode[Machine](kv.Value, kv.ModRevision)
			if err == nil && r.Value.UpdatedAt.After(oldest) {
				break // and so are the others
			}
		}
		t.remove(string(kv.Key))
	}
	return nil
}
