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

var _ machine.Store = state.HostStore{}

// fleetStore is the store as the API sees it: all of the fleet, whatever of it this host
// has.
type fleetStore struct {
	*state.Store
	whole  *state.Whole
	unseat func(context.Context, state.Host) (left []uint64) // of a host that is removed
	later  func(left []uint64)
}

var _ api.Store = fleetStore{}

// Snapshot is api.Store.
func (s fleetStore) Snapshot() *state.Snapshot { return s.whole.Snapshot() }

// Wait is api.Store.
func (s fleetStore) Wait(ctx context.Context, after int64) (*state.Snapshot, error) {
	return s.whole.Wait(ctx, after)
}

// RemoveHost is api.Store. The host's member of the store goes with it, and first if it can:
// once the host is cut off etcd may take it for one that has just come back, and would wait
// for some seconds, in which it is sent all that is written.
func (s fleetStore) RemoveHost(ctx context.Context, id sixpn.Host, force bool) (int64, error) {
	host := s.whole.Snapshot().Hosts[id]
	if !force { // a lost one is cut off already
		if err := s.MayRemoveHost(ctx, id); err != nil {
			return 0, err
		}
		s.unseat(ctx, host)
	}
	revision, err := s.Store.RemoveHost(ctx, id, force)
	if err == nil {
		s.later(s.unseat(ctx, host))
	}
	return revision, err
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
	return i.driver.LogsAfter(ctx, id, q.After, q.Stamped, q.Follow, w)
}
