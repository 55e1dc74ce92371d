package state

import (
	"context"

	"github.com/sixpn/sixpn"
)

// HostStore is a store as those who run a host's Machines see it: what they say of a
// Machine counts as long as it is of this host.
type HostStore struct {
	*Store
	Host sixpn.Host
}

// Machines are those of the host, when the store has changed after a revision.
func (s HostStore) Machines(ctx context.Context, after int64) ([]Machine, int64, error) {
	snapshot, err := s.Wait(ctx, after)
	if err != nil {
		return nil, 0, err
	}
	return snapshot.HostMachines(s.Host), snapshot.Revision, nil
}

// UpdateMachine is Store.UpdateOwnMachine.
func (s HostStore) UpdateMachine(ctx context.Context, id string, change func(*Machine) error) (Machine, int64, error) {
	return s.UpdateOwnMachine(ctx, s.Host, id, change)
}

// DestroyMachine is Store.DestroyOwnMachine.
func (s HostStore) DestroyMachine(ctx context.Context, id string) (int64, error) {
	return s.DestroyOwnMachine(ctx, s.Host, id)
}

// HandOver is Store.HandOver.
func (s HostStore) HandOver(ctx context.Context, id string) (Machine, int64, error) {
	return s.Store.HandOver(ctx, s.Host, id)
}

// HandBack is Store.HandBack.
func (s HostStore) HandBack(ctx context.Context, id, why string) (Machine, int64, error) {
	return s.Store.HandBack(ctx, s.Host, id, why)
}
