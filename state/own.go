package state

import (
	"context"

	"github.com/sixpn/sixpn"
)

// What an agent says of the Machines of its host is fenced here: it may have been cut
// off, and others may have gone on without it. A lease is no lock; these look at the
// records in the transaction that writes.

// UpdateOwnMachine is UpdateMachine for the agent of a host. It is refused with kind
// Conflict when the Machine is on another host by now, and with kind NotFound when it
// was destroyed, or the host removed from the fleet.
func (s *Store) UpdateOwnMachine(ctx context.Context, host sixpn.Host, id string, change func(*Machine) error) (Machine, int64, error) {
	return s.updateMachine(ctx, id, sourceHost, func(t *transaction, m *Machine) error {
		if err := t.mustOwn(host, *m); err != nil {
			return err
		}
		return change(m)
	})
}

// DestroyOwnMachine is DestroyMachine for the agent of a host, and refused likewise.
func (s *Store) DestroyOwnMachine(ctx context.Context, host sixpn.Host, id string) (int64, error) {
	return s.removeMachine(ctx, id, false, func(t *transaction, m Machine) error { return t.mustOwn(host, m) })
}

func (t *transaction) mustOwn(host sixpn.Host, m Machine) error {
	if m.Host != host {
		return refuse(Conflict, "host", "machine %s is on host %v now: host %v has nothing to say of it any more", m.ID, m.Host, host)
	}
	_, err := t.host(host)
	return err
}
