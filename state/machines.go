package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

// MaxHostMachines is how many Machines one host takes; its tables have room for twice
// as many ports.
const MaxHostMachines = 4096

// NewMachine is what a new Machine is made of.
type NewMachine struct {
	// ID is usually empty: a random one is made. A caller that gives one can repeat the
	// request safely: the same request with the same id makes one Machine.
	ID     string
	App    string
	Name   string // unique in the app; empty: the id
	Region string // empty: that of the host
	Host   sixpn.Host
	Config MachineConfig
	// SkipLaunch leaves it created until it is asked to start.
	SkipLaunch bool
	// Lease, which may be nil, is taken with the creation.
	Lease *LeaseRequest
}

// NewInstanceID is a new random value for Machine.InstanceID: 26 letters and digits.
func NewInstanceID() string { return rand.Text() }

func newMachineID() string {
	var b [machineIDLength / 2]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// CreateMachine makes a Machine that is wanted started, unless SkipLaunch says
// otherwise.
func (s *Store) CreateMachine(ctx context.Context, n NewMachine) (Machine, int64, error) {
	if err := validateNewMachine(n); err != nil {
		return Machine{}, 0, err
	}
	id := n.ID
	if id == "" {
		id = newMachineID()
	}
	m := Machine{
		ID: id, Name: n.Name, App: n.App, Host: n.Host, Region: n.Region, Desired: Started, State: Created,
		InstanceID: NewInstanceID(), Config: n.Config, CreatedAt: now(),
	}
	m.UpdatedAt = m.CreatedAt
	if m.Name == "" {
		m.Name = id
	}
	if n.SkipLaunch {
		m.Desired = Stopped
	}
	if n.Lease != nil {
		m.Lease = newLease(*n.Lease, m, m.CreatedAt)
	}
	m.Events = eventsOf(Machine{}, m, sourceUser)
	var existing *Record[Machine]
	revision, err := s.transact(ctx, creating, "create a machine of app "+n.App, func(t *transaction) error {
		existing = nil
		app, err := t.app(n.App)
		if err != nil {
			return err
		}
		if err := app.mustStay(); err != nil {
			return err
		}
		m.Network = app.Network
		if existing, err = t.sameMachine(m, n); err != nil || existing != nil {
			return err
		}
		if err := t.place(&m); err != nil {
			return err
		}
		number, err := t.number(counterMachines(m.Network), 1)
		if err != nil {
			return err
		}
		m.Number = sixpn.Machine(number)
		t.put(nameMachine(m.App, m.Name), m.ID)
		t.put(nameMachineID(m.ID), hex8(m.Network))
		t.put(indexMachine(m.Host, m.ID), "")
		t.remove(keyDeleted(m.Network, m.App, m.ID)) // of an earlier one with this id
		return t.create(keyMachine(m.Network, m.ID), m)
	})
	switch {
	case err != nil:
		return Machine{}, 0, err
	case existing != nil:
		return existing.Value, existing.ModRevision, nil
	default:
		return m, revision, nil
	}
}

func validateNewMachine(n NewMachine) error {
	if n.ID != "" {
		if err := ValidateMachineID(n.ID); err != nil {
			return err
		}
	}
	if n.Name != "" {
		if err := ValidateMachineName(n.Name); err != nil {
			return err
		}
	}
	if n.Region != "" {
		if err := ValidateRegion(n.Region); err != nil {
			return err
		}
	}
	if n.Lease != nil {
		if err := validateLease(*n.Lease); err != nil {
			return err
		}
		if n.Lease.Nonce != "" {
			return refuse(Invalid, "nonce", "a new Machine has no lease that could go on: leave the nonce out")
		}
	}
	return ValidateMachineConfig(n.Config)
}

// sameMachine finds the Machine that an earlier try of the same request made.
func (t *transaction) sameMachine(m Machine, n NewMachine) (*Record[Machine], error) {
	network, err := t.owner(nameMachineID(m.ID))
	if err != nil || network == 0 {
		return nil, err
	}
	r, found, err := load[Machine](t, keyMachine(sixpn.Network(network), m.ID))
	if err != nil {
		return nil, err
	}
	old := r.Value
	if !found || old.App != m.App || old.Name != m.Name || old.Host != m.Host ||
		n.Region != "" && old.Region != n.Region || !sameConfig(old.Config, m.Config) {
		return nil, refuse(Conflict, "id", "the id %s is that of another Machine, or of one with another configuration: leave the id out for a new one", m.ID)
	}
	return &r, nil
}

// sameConfig compares what is stored: there, no map and an empty one are the same.
func sameConfig(a, b MachineConfig) bool {
	encodedA, errA := json.Marshal(a)
	encodedB, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(encodedA, encodedB)
}

// place checks that the host and the name are free for a Machine.
func (t *transaction) place(m *Machine) error {
	host, found, err := load[Host](t, keyHost(m.Host))
	if err != nil {
		return err
	}
	if !found {
		return refuse(NotFound, "host", "there is no host %v: `sixpn status` on a host shows its number", m.Host)
	}
	if host.Value.Draining {
		return refuse(Conflict, "host", "the host %s (%v) is drained and takes no new Machines: choose another host", host.Value.Name, m.Host)
	}
	if m.Region == "" {
		m.Region = host.Value.Region
	}
	taken, _, err := t.get(nameMachine(m.App, m.Name))
	if err != nil {
		return err
	}
	if taken != nil {
		return refuse(Conflict, "name", "the app %q has a Machine %q already, %s: choose another name, or destroy that one", m.App, m.Name, taken)
	}
	n, err := t.count(indexHostMachines(m.Host))
	if err != nil {
		return err
	}
	if n >= MaxHostMachines {
		return refuse(Exhausted, "host", "the host %v has %d Machines, the most it takes: destroy one, or use another host", m.Host, n)
	}
	return nil
}

// machine finds a Machine by its id.
func (t *transaction) machine(id string) (Record[Machine], error) {
	if err := ValidateMachineID(id); err != nil {
		return Record[Machine]{}, err
	}
	missing := refuse(NotFound, "id", "there is no Machine %s: `sixpn machine list` shows them", id)
	network, err := t.owner(nameMachineID(id))
	if err != nil {
		return Record[Machine]{}, err
	}
	if network == 0 {
		return Record[Machine]{}, missing
	}
	r, found, err := load[Machine](t, keyMachine(sixpn.Network(network), id))
	if err == nil && !found {
		err = missing
	}
	return r, err
}

// DestroyMachine removes a Machine that does not run; Snapshot.Deleted has it for a
// while, unless the store is full. Its number is never given out again. The last
// Machine of an app that is being destroyed takes the app with it.
func (s *Store) DestroyMachine(ctx context.Context, id string) (int64, error) {
	return s.removeMachine(ctx, id, false, func(*transaction, Machine) error { return nil })
}

// removeMachine removes a Machine if allow has nothing against it; running says that
// it may have a run.
func (s *Store) removeMachine(ctx context.Context, id string, running bool, allow func(*transaction, Machine) error) (int64, error) {
	revision, err := s.removeAndBury(ctx, id, running, allow, true)
	if errors.Is(err, rpctypes.ErrNoSpace) { // which still takes deletions
		revision, err = s.removeAndBury(ctx, id, running, allow, false)
	}
	return revision, err
}

func (s *Store) removeAndBury(ctx context.Context, id string, running bool, allow func(*transaction, Machine) error, bury bool) (int64, error) {
	// Those of an app that is being destroyed look at each other: they take turns.
	queue := id
	if snapshot := s.Snapshot(); snapshot.Apps[snapshot.Machines[id].App].Destroying {
		queue = "destroy " + snapshot.Machines[id].App
	}
	return s.transact(ctx, queue, "destroy machine "+id, func(t *transaction) error {
		r, err := t.machine(id)
		if err != nil {
			return err
		}
		m := r.Value
		if err := allow(t, m); err != nil {
			return err
		}
		if err := m.mustHaveEnded(); err != nil && !running {
			return err
		}
		t.remove(keyMachine(m.Network, id))
		t.remove(nameMachine(m.App, m.Name))
		t.remove(nameMachineID(id))
		t.remove(indexMachine(m.Host, id))
		app, found, err := load[App](t, keyApp(m.Network, m.App))
		if err != nil {
			return err
		}
		if found && app.Value.Destroying {
			another, err := t.hasAnother(m)
			if err != nil {
				return err
			}
			if !another {
				t.removeApp(app.Value)
				return nil
			}
		}
		if !bury {
			return nil
		}
		return t.bury(r)
	})
}

// mustHaveEnded refuses a Machine that has a run, or may have one.
func (m Machine) mustHaveEnded() error {
	switch m.State {
	case Created, Stopped, Failed, Destroying, Destroyed:
		return nil
	case Starting, Started, Stopping, Suspending, Suspended:
		return refuse(Conflict, "state", "the Machine %s is %s: stop it first with `sixpn machine stop %s`", m.ID, m.State, m.ID)
	default: // of a newer release
		return refuse(Conflict, "state", "the Machine %s is in the state %q, which this release does not know: update this agent", m.ID, m.State)
	}
}

// hasAnother is whether the app of a Machine has another one. That one is guarded: of
// the last two, one loses, looks again and finds itself alone.
func (t *transaction) hasAnother(m Machine) (bool, error) {
	names, err := t.read(nameMachines(m.App), clientv3.WithPrefix(), clientv3.WithLimit(2))
	if err != nil {
		return false, err
	}
	for _, kv := range names.Kvs {
		if string(kv.Value) != m.ID {
			t.keys[string(kv.Key)] = kv.ModRevision
			return true, nil
		}
	}
	return false, nil
}
