package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sixpn/sixpn/state"
)

// ManagerConfig is what a Manager works with.
type ManagerConfig struct {
	Name   string // the agent's
	Driver *Driver
	Store  Store
	Ports  Ports
	Log    *slog.Logger

	MTU           uint16        // of Machines that ask for none; default DefaultMTU
	XDP           bool          // whether devices that are made from now on shall take frames from XDP
	Logs          LogLimits     // of every Machine
	StopTimeout   time.Duration // before SIGKILL, for Machines that say none; default 5 s
	ApplyTimeout  time.Duration // how long a stop waits for the kernel's tables; default 5 s
	FreezeTimeout time.Duration // how long the processes of a Machine may take to stand still, or to go on; default 5 s
	ListenTimeout time.Duration // how long a Machine with services may take to listen before it counts as started; default 5 s
	PortTimeout   time.Duration // how long making or removing a port may take; default 30 s
	StoreTimeout  time.Duration // how long one write may take; default 5 s
	RelaySettle   time.Duration // how long a server must listen with IPv4 only before it is relayed; default 500 ms
	RelayInterval time.Duration // how often such servers are looked for; default 100 ms
	RelayIdle     time.Duration // how long a UDP client of such a server keeps its port towards it while nothing passes; default 5 min
	RelaySessions int           // how many UDP clients of one port have one, the one unused for longest making room; default 1024
	RetryInterval time.Duration // before what failed is tried again; default 1 s
	Backoff       Backoff
}

// Manager makes the Machines of this host what their records say, and writes
// back what became of them.
//
// Commands are writes to a record. Start sets Desired to started and a new
// InstanceID; restart is the same write: a run with another InstanceID than the
// record's is stopped as by a stop, then started anew. Another configuration, or
// another address, comes with another InstanceID. Stop sets Desired to stopped,
// destroy to destroyed. Suspend sets it to suspended, which freezes the run, and
// a start with the InstanceID of that run lets it go on. A start without a new InstanceID changes
// nothing for a Machine that ended by itself: then its restart policy decides.
//
// When Run ends, all Machines go on. The next Manager adopts them.
type Manager struct {
	config  ManagerConfig
	log     *slog.Logger
	adopted chan struct{}

	claiming sync.Mutex // of devices that are attached, see claim
	mu       sync.Mutex
	workers  map[string]*worker
	starting sync.WaitGroup
}

// NewManager fills in the settings that were left out.
func NewManager(c ManagerConfig) (*Manager, error) {
	if c.Driver == nil || c.Store == nil || c.Ports == nil {
		return nil, errors.New("a machine manager needs Driver, Store and Ports")
	}
	setDefault(&c.MTU, DefaultMTU)
	setDefault(&c.StopTimeout, 5*time.Second)
	setDefault(&c.ApplyTimeout, 5*time.Second)
	setDefault(&c.FreezeTimeout, 5*time.Second)
	setDefault(&c.ListenTimeout, 5*time.Second)
	setDefault(&c.PortTimeout, 30*time.Second)
	setDefault(&c.StoreTimeout, 5*time.Second)
	setDefault(&c.RelaySettle, 500*time.Millisecond)
	setDefault(&c.RelayInterval, 100*time.Millisecond)
	setDefault(&c.RelayIdle, 5*time.Minute)
	setDefault(&c.RelaySessions, 1024)
	setDefault(&c.RetryInterval, time.Second)
	c.Backoff.setDefaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Manager{config: c, log: c.Log, adopted: make(chan struct{}), workers: make(map[string]*worker)}, nil
}

// Adopted is closed once the ports of all Machines that an earlier agent left
// running were given to Ports. Before that, a port that nobody knows may still
// be a Machine's.
func (m *Manager) Adopted() <-chan struct{} { return m.adopted }

// Process returns the run of a Machine that is running on this host.
func (m *Manager) Process(id string) (*Process, error) {
	m.mu.Lock()
	w := m.workers[id]
	m.mu.Unlock()
	if w != nil {
		if p := w.running(); p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("machine %s does not run on this host", id)
}

// Run works until ctx ends, and returns nil then.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer m.starting.Wait()
	defer cancel()
	m.adopt(ctx)
	if ctx.Err() != nil {
		return nil
	}
	close(m.adopted)
	var revision int64
	for ctx.Err() == nil {
		machines, newer, err := m.config.Store.Machines(ctx, revision)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			m.log.Warn("the state cannot be read, machines go on as they are", "error", err)
			pause(ctx, m.config.RetryInterval)
			continue
		}
		revision = newer
		m.distribute(ctx, machines, revision)
	}
	return nil
}

// adopt finds what earlier agents left and makes ports of the running.
func (m *Manager) adopt(ctx context.Context) {
	processes, err := m.config.Driver.Adopt(ctx)
	if err != nil {
		m.log.Error("not all machines that an earlier agent left were adopted", "error", err)
	}
	var adding sync.WaitGroup
	for _, p := range processes {
		w := newWorker(m, p.ID())
		m.mu.Lock()
		m.workers[p.ID()] = w
		m.mu.Unlock()
		adding.Go(func() { w.adopt(ctx, p) })
	}
	ids, err := m.config.Driver.Attachments()
	if err != nil {
		m.log.Error("not all machines that an earlier agent attached were adopted", "error", err)
	}
	for _, id := range ids {
		m.mu.Lock()
		if m.workers[id] == nil {
			m.workers[id] = newWorker(m, id)
		}
		w := m.workers[id]
		m.mu.Unlock()
		adding.Go(func() { w.adoptAttached(ctx) })
	}
	adding.Wait()
}

// distribute tells every worker what its record is now, nil if there is none.
func (m *Manager) distribute(ctx context.Context, machines []state.Machine, revision int64) {
	records := make(map[string]*state.Machine, len(machines))
	for i := range machines {
		records[machines[i].ID] = &machines[i]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range records {
		if m.workers[id] == nil {
			m.workers[id] = newWorker(m, id)
		}
	}
	for id, w := range m.workers {
		// Told before it runs: a worker takes no record for none.
		w.tell(records[id], revision)
		m.start(ctx, w)
	}
}

// start lets a worker run, if it does not already.
func (m *Manager) start(ctx context.Context, w *worker) {
	if w.started {
		return
	}
	w.started = true
	m.starting.Go(func() {
		for {
			w.run(ctx)
			if m.ended(ctx, w) {
				return
			}
		}
	})
}

// ended takes a worker out that has none to look after any more. It has one again if
// its Machine has come back since, as one does that could not migrate.
func (m *Manager) ended(ctx context.Context, w *worker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() == nil && w.current() != nil {
		return false
	}
	delete(m.workers, w.id)
	return true
}

// pause waits, less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// spec is what the driver is told about a record.
func (m *Manager) spec(r state.Machine, attempt int) Spec {
	// Of two values for a name the later counts: what the router says about a
	// Machine is always true inside.
	env := make([]string, 0, len(r.Config.Env)+5)
	for name, value := range r.Config.Env {
		env = append(env, name+"="+value)
	}
	addr, hostname := r.Addr(), cmp.Or(r.Config.DNS.Hostname, r.ID)
	env = append(env,
		"FLY_PRIVATE_IP="+addr.String(), "FLY_APP_NAME="+r.App, "FLY_REGION="+r.Region,
		"FLY_MACHINE_ID="+r.ID, "FLY_PROCESS_GROUP="+r.ProcessGroup())
	return Spec{
		ID: r.ID, Instance: r.InstanceID, Attempt: attempt, Addr: addr, Hostname: hostname,
		Exec: r.Config.Init.Exec, Env: env, WorkDir: r.Config.WorkDir,
		Hosts:      HostsFile(addr.String(), hostname),
		ResolvConf: ResolvConf(r.Config.DNS),
		Logs:       m.config.Logs,
		Relay: RelaySpec{
			Ports: relayable(r.Config.Services, "tcp"), UDP: relayable(r.Config.Services, "udp"),
			Settle: m.config.RelaySettle, Interval: m.config.RelayInterval, Idle: m.config.RelayIdle, Sessions: m.config.RelaySessions,
		},
	}
}

// relayable are the internal ports of a protocol that are relayed when need be.
func relayable(services []state.Service, protocol string) (ports []uint16) {
	for _, s := range services {
		if s.Protocol == protocol && !slices.Contains(ports, s.InternalPort) {
			ports = append(ports, s.InternalPort)
		}
	}
	return ports
}
