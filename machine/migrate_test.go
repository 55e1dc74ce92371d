package machine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// fleet is a store, and hosts that each run what is theirs of it.
type fleet struct {
	store  *state.Store
	client *clientv3.Client
	hosts  []*member
}

type member struct {
	state.Host
	fleet  *fleet
	config machine.DriverConfig
	driver *machine.Driver
	ports  *memoryPorts
	stop   func() // ends its manager, as an agent that stops
}

func newFleet(t *testing.T, regions ...string) *fleet {
	t.Helper()
	embedded, err := state.StartEmbedded(t.Context(), state.EmbeddedConfig{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	check(t, err)
	t.Cleanup(func() { check(t, embedded.Close()) })
	store, err := state.Open(await.Context(t), embedded.Client(), slog.New(slog.DiscardHandler))
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = store.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	f := &fleet{store: store, client: embedded.Client()}
	_, _, err = store.CreateOrg(await.Context(t), "acme", "")
	check(t, err)
	_, _, err = store.CreateApp(await.Context(t), "web", "acme", "")
	check(t, err)
	for i, region := range regions {
		host, _, err := store.RegisterHost(await.Context(t), fmt.Sprintf("host-%d", i+1), region, 0)
		check(t, err)
		m := &member{Host: host, fleet: f, config: driverConfig(t), ports: newMemoryPorts(&journal{})}
		m.live(t, true)
		m.startManager(t)
		f.hosts = append(f.hosts, m)
	}
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// live gives a host its lease, or takes it.
func (m *member) live(t *testing.T, alive bool) {
	t.Helper()
	key := fmt.Sprintf("/sixpn/v1/hosts/%08x/alive", uint32(m.ID))
	var err error
	if alive {
		_, err = m.fleet.client.Put(await.Context(t), key, `{"session":"of a test"}`)
	} else {
		_, err = m.fleet.client.Delete(await.Context(t), key)
	}
	check(t, err)
}

func (m *member) startManager(t *testing.T) {
	t.Helper()
	var err error
	m.driver, err = machine.NewDriver(m.config)
	check(t, err)
	manager, err := machine.NewManager(machine.ManagerConfig{
		Name: m.config.Name, Driver: m.driver, Store: state.HostStore{Store: m.fleet.store, Host: m.ID}, Ports: m.ports, RetryInterval: 5 * time.Millisecond,
		Backoff: machine.Backoff{Initial: time.Millisecond, Max: 10 * time.Millisecond},
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)).With("host", m.Name),
	})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- manager.Run(ctx) }()
	stopped := false
	m.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			check(t, <-done)
		}
	}
	t.Cleanup(m.stop)
}

// create makes a Machine on a host and waits until it runs.
func (m *member) create(t *testing.T, script string) state.Machine {
	t.Helper()
	created, _, err := m.fleet.store.CreateMachine(await.Context(t), state.NewMachine{
		App: "web", Host: m.ID, Config: state.MachineConfig{Init: state.Init{Exec: []string{"sh", "-c", script}}},
	})
	check(t, err)
	return m.fleet.becomes(t, created.ID, "started", func(r state.Machine) bool { return r.State == state.Started })
}

func (f *fleet) becomes(t *testing.T, id, what string, is func(state.Machine) bool) (m state.Machine) {
	t.Helper()
	await.True(t, "Machine "+id+" is "+what, func() bool {
		m = f.store.Snapshot().Machines[id]
		return is(m)
	})
	return m
}

// nothingLeft waits until a host has nothing of a Machine any more.
func (m *member) nothingLeft(t *testing.T, id string) {
	t.Helper()
	await.True(t, m.Name+" has nothing left of "+id, func() bool {
		_, port := m.ports.get(id)
		found, err := m.driver.Adopt(await.Context(t))
		check(t, err)
		for _, p := range found {
			if p.ID() == id {
				return false
			}
		}
		return !port
	})
}

func TestMigrateBetweenManagers(t *testing.T) {
	f := newFleet(t, "ams", "nrt")
	from, to := f.hosts[0], f.hosts[1]
	before := from.create(t, forever+" # "+t.Name())
	waitOutput(t, from.driver, before.ID, "up")

	_, _, err := f.store.MigrateMachine(await.Context(t), before.ID, "", to.ID)
	check(t, err)
	after := f.becomes(t, before.ID, "started on the other host", func(m state.Machine) bool { return m.Host == to.ID && m.State == state.Started })
	if after.Addr() == before.Addr() || after.Region != "nrt" || after.Migration != nil || after.Name != before.Name {
		t.Errorf("after the migration it is %+v", after)
	}
	waitOutput(t, to.driver, before.ID, "up")
	if port, ok := to.ports.get(before.ID); !ok || port.Host != to.ID || port.Number != after.Number {
		t.Errorf("its port on the other host is %+v", port)
	}
	from.nothingLeft(t, before.ID)

	// And back again, to a host that had it before.
	_, _, err = f.store.MigrateMachine(await.Context(t), before.ID, "", from.ID)
	check(t, err)
	again := f.becomes(t, before.ID, "started where it was", func(m state.Machine) bool { return m.Host == from.ID && m.State == state.Started })
	if again.Number <= after.Number {
		t.Errorf("back, it has number %v after %v: numbers are never reused", again.Number, after.Number)
	}
	to.nothingLeft(t, before.ID)
}

// What cannot be started there is started where it was.
func TestMigrateToAHostThatCannotStartIt(t *testing.T) {
	f := newFleet(t, "ams", "nrt")
	from, to := f.hosts[0], f.hosts[1]
	to.ports.fail(errors.New("this host has no room"))
	before := from.create(t, forever)
	_, _, err := f.store.MigrateMachine(await.Context(t), before.ID, "", to.ID)
	check(t, err)
	after := f.becomes(t, before.ID, "started where it was", func(m state.Machine) bool {
		return m.Host == from.ID && m.State == state.Started && m.Migration != nil && m.Migration.Error != ""
	})
	if after.Number <= before.Number || after.Region != "ams" || after.Leaving() || after.Arriving() {
		t.Errorf("after the migration failed it is %+v", after)
	}
	if to.ports.failed() != 1 {
		t.Errorf("the other host tried %d times, want once", to.ports.failed())
	}
	to.nothingLeft(t, before.ID)
	waitOutput(t, from.driver, before.ID, "up")
}

// The agent is away when the move is asked for, and the other host is lost before it
// returns: the run it finds is stopped, and another one starts in its place.
func TestMigrateToAHostThatIsLost(t *testing.T) {
	f := newFleet(t, "ams", "nrt")
	from, to := f.hosts[0], f.hosts[1]
	before := from.create(t, forever)
	from.stop()
	_, _, err := f.store.MigrateMachine(await.Context(t), before.ID, "", to.ID)
	check(t, err)
	to.live(t, false)
	from.startManager(t)
	after := f.becomes(t, before.ID, "started where it was", func(m state.Machine) bool {
		return m.Host == from.ID && m.State == state.Started && m.Migration != nil && m.Migration.Error != ""
	})
	if after.Addr() != before.Addr() || after.InstanceID == before.InstanceID {
		t.Errorf("after the migration failed it is %+v", after)
	}
	to.nothingLeft(t, before.ID)
}

// A Machine that is stopped moves without being started.
func TestMigrateWhatIsStopped(t *testing.T) {
	f := newFleet(t, "ams", "nrt")
	from, to := f.hosts[0], f.hosts[1]
	before := from.create(t, forever)
	_, _, err := f.store.ChangeMachine(await.Context(t), before.ID, "", func(m *state.Machine) error { m.Desired = state.Stopped; return nil })
	check(t, err)
	f.becomes(t, before.ID, "stopped", func(m state.Machine) bool { return m.State == state.Stopped })
	_, _, err = f.store.MigrateMachine(await.Context(t), before.ID, "", to.ID)
	check(t, err)
	after := f.becomes(t, before.ID, "on the other host", func(m state.Machine) bool { return m.Host == to.ID })
	if after.State != state.Stopped || after.Migration != nil {
		t.Errorf("on the other host it is %+v", after)
	}
	from.nothingLeft(t, before.ID)
	_, _, err = f.store.ChangeMachine(await.Context(t), before.ID, "", func(m *state.Machine) error {
		m.Desired, m.InstanceID = state.Started, state.NewInstanceID()
		return nil
	})
	check(t, err)
	f.becomes(t, before.ID, "started there", func(m state.Machine) bool { return m.Host == to.ID && m.State == state.Started })
}
