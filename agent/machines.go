package agent

import (
	"context"
	"fmt"
	"io"
	"syscall"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// hostStore is the store as the manager and the prober see it: what they say of a
// Machine counts as long as it is of this host.
type hostStore struct {
	*state.Store
	host sixpn.Host
}

var _ machine.Store = hostStore{}

// Machines is machine.Store.
func (s hostStore) Machines(ctx context.Context, after int64) ([]state.Machine, int64, error) {
	snapshot, err := s.Wait(ctx, after)
	if err != nil {
		return nil, 0, err
	}
	return snapshot.HostMachines(s.host), snapshot.Revision, nil
}

// UpdateMachine is machine.Store.
func (s hostStore) UpdateMachine(ctx context.Context, id string, change func(*state.Machine) error) (state.Machine, int64, error) {
	return s.UpdateOwnMachine(ctx, s.host, id, change)
}

// DestroyMachine is machine.Store.
func (s hostStore) DestroyMachine(ctx context.Context, id string) (int64, error) {
	return s.DestroyOwnMachine(ctx, s.host, id)
}

// HandOver is machine.Store.
func (s hostStore) HandOver(ctx context.Context, id string) (state.Machine, int64, error) {
	return s.Store.HandOver(ctx, s.host, id)
}

// HandBack is machine.Store.
func (s hostStore) HandBack(ctx context.Context, id, why string) (state.Machine, int64, error) {
	return s.Store.HandBack(ctx, s.host, id, why)
}

// fleetStore is the store as the API sees it: all of the fleet, whatever of it this host
// has.
type fleetStore struct {
	*state.Store
	whole *state.Whole
}

var _ api.Store = fleetStore{}

// Snapshot is api.Store.
func (s fleetStore) Snapshot() *state.Snapshot { return s.whole.Snapshot() }

// Wait is api.Store.
func (s fleetStore) Wait(ctx context.Context, after int64) (*state.Snapshot, error) {
	return s.whole.Wait(ctx, after)
}

// insides is the API's way into the Machines of this host.
type insides struct {
	driver  *machine.Driver
	manager *machine.Manager
}

var _ api.Machines = insides{}

// awake is the process of a Machine that can answer. One that is frozen would, to
// whoever waits for it, seem dead.
func (i insides) awake(id string) (*machine.Process, error) {
	process, err := i.manager.Process(id)
	if err == nil && process.Frozen() {
		err = fmt.Errorf("machine %s is suspended: start it first (sixpn machine start %s)", id, id)
	}
	return process, err
}

// Exec is api.Machines.
func (i insides) Exec(ctx context.Context, id string, c api.Command) (int, error) {
	process, err := i.awake(id)
	if err != nil {
		return 0, err
	}
	return process.Exec(ctx, machine.ExecRequest{Exec: c.Exec, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr})
}

// Signal is api.Machines.
func (i insides) Signal(ctx context.Context, id string, signal syscall.Signal) error {
	process, err := i.awake(id)
	if err != nil {
		return err
	}
	return process.Signal(ctx, signal)
}

// Logs is api.Machines.
func (i insides) Logs(ctx context.Context, id string, q api.LogQuery, w io.Writer) error {
	if q.Stamped {
		return i.driver.StampedLogs(ctx, id, q.Follow, w)
	}
	return i.driver.Logs(ctx, id, q.Follow, w)
}
