// Package agent is the daemon: it starts the other rooms, connects them, and runs
// them as tasks of one group. It is the only room that knows all others.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/dns"
	"github.com/sixpn/sixpn/fleet"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/observe"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
	"github.com/sixpn/sixpn/wireguard"
)

// agent is all that one running agent holds.
type agent struct {
	config  Config
	log     *slog.Logger
	started time.Time

	fleet    *fleet.Fleet     // nil: this host is alone
	hosts    net.Listener     // for other hosts, nil likewise
	calling  *http.Client     // of other hosts, nil likewise
	embedded *state.Embedded  // nil: the store is elsewhere
	client   *clientv3.Client // of the store
	member   *state.Embedded  // of the fleet's store, on this host; nil: none, or it is embedded
	store    *state.Store
	read     atomic.Pointer[state.Store] // store, for the member, which is there before it
	host     state.Host
	// unregistered: the store was away at the start, so that it has this host's record as
	// it was before.
	unregistered bool
	mesh         *wireguard.Mesh // nil: this host is alone, or its mesh is native
	native       *native         // nil: this host is alone, or its mesh is encrypted
	saidOfModes  string          // in the log, see otherModes
	private      *netns.Private
	loader       *loader.Loader
	tables       *maps.Tables
	loop         *reconcile.Loop
	pacer        *flycast.Pacer
	raw          *netns.RawSocket
	driver       *machine.Driver
	manager      *machine.Manager
	ports        *ports
	prober       *flycast.Prober
	metrics      *observe.Collector
	listener     net.Listener // of the metrics, nil: they are off
	names        *dns.Server
	allNames     *dns.Server // of the whole fleet, for whoever asks by the API
	whole        *state.Whole
	trips        *flycast.RoundTrips
	exchange     *flycast.Exchanger // nil: this host is alone
	api          *api.Server
	members      atomic.Pointer[[]observe.Member] // of the store, as they were last seen
	hostUp       chan struct{}                    // closed once the host port is a port
	unseating    chan uint64                      // members of the store that removed hosts have left
	settled      chan struct{}                    // closed once it is known what runs on this host

	closers []func() error // in the order of opening
}

// Run is an agent's life: from the lock on its state directory until ctx ends,
// which is no error. The data plane and the Machines were there before it, if an
// earlier agent of this name made them, and are there after it, unless the
// configuration says DetachOnExit.
func Run(ctx context.Context, c Config) (err error) {
	if err := c.complete(); err != nil {
		return err
	}
	if err := c.setRegions(); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	// Before anything is made: a host that cannot be one has nothing to be cleaned up.
	if err := loader.Probe(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	// Before any pin is opened: two agents of one name would undo each other's work.
	lock, err := loader.Lock(c.StateDir)
	if err != nil {
		return fmt.Errorf("agent %q: %w", c.Name, err)
	}
	defer lock.Close()

	err = run(ctx, c)
	for restored := new(state.RestoredError); errors.As(err, &restored) && ctx.Err() == nil; err = run(ctx, c) {
		// The kernel and the Machines go on meanwhile, as through every start.
		c.Log.Warn("the agent begins again, with the restored store", "error", err)
		select {
		case <-time.After(restoredPause):
		case <-ctx.Done():
		}
	}
	if !c.DetachOnExit {
		return err
	}
	// The context has ended already; what is left to do has a limit of its own.
	resetCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resetTimeout)
	defer cancel()
	removed, resetErr := reset(resetCtx, c)
	for _, what := range removed {
		c.Log.Info("removed", "what", what)
	}
	return errors.Join(err, resetErr)
}

// restoredPause is before an agent begins again: the restored store may go away, too.
const restoredPause = time.Second

func run(ctx context.Context, c Config) (err error) {
	a := &agent{config: c, log: c.Log, started: time.Now(), hostUp: make(chan struct{}), settled: make(chan struct{}), unseating: make(chan uint64, 16)}
	defer func() { err = errors.Join(err, a.close()) }()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"metrics", a.listenMetrics},
		{"fleet", a.openFleet},
		{"mesh", a.openMesh},
		{"store", a.openStore},
		{"calls", a.openCalls},
		{"private namespace", a.openPrivate},
		{"round trips", a.openRoundTrips},
		{"router", a.openRouter},
		{"tables", a.openTables},
		{"machines", a.openMachines},
		{"health checks", a.openChecks},
		{"collector", a.openMetrics},
		{"names", a.openNames},
		{"api", a.openAPI},
	} {
		if err := step.do(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // told to end while it began
			}
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return a.work(ctx)
}

// openPrivate makes or finds the namespace of the agent's own sockets.
func (a *agent) openPrivate(ctx context.Context) (err error) {
	if err := closePrivateRange(); err != nil {
		return err
	}
	if a.private, err = netns.SetupPrivate(ctx, a.config.private()); err != nil {
		return err
	}
	a.closers = append(a.closers, a.private.Close)
	if a.raw, err = a.private.Raw(); err != nil {
		return err
	}
	a.closers = append(a.closers, a.raw.Close)
	return nil
}

// openRouter loads the router or takes over the running one.
func (a *agent) openRouter(ctx context.Context) (err error) {
	c := a.config.router()
	c.Constants.Host = a.host.ID
	c.Fill = a.fill
	if a.loader, err = loader.Open(ctx, c); err != nil {
		return err
	}
	a.closers = append(a.closers, a.loader.Close)
	opened := a.loader.Opened()
	a.log.Info("router opened", "adopted", opened.Adopted, "replaced", opened.Replaced, "made", opened.Made, "devices", len(a.loader.Devices()))
	return nil
}

func (a *agent) tableOptions() maps.Options {
	return maps.Options{
		Maglev: flycast.Maglev, Grace: a.config.Timeouts.Grace,
		PortRemoved: a.portRemoved, BackendFreed: a.backendFreed,
	}
}

// settings are the limits, of which the size of the flow table is one.
func (a *agent) settings(tables *bpf.RouterMaps) reconcile.Settings {
	return reconcile.Settings{
		MachineFlows: cmp.Or(a.config.MachineFlows, reconcile.DefaultSettings.MachineFlows),
		NetworkFlows: cmp.Or(a.config.NetworkFlows, reconcile.DefaultSettings.NetworkFlows),
		TableFlows:   tables.Flows.MaxEntries(),
		Rules:        flycast.Rules{Distance: a.distance},
		Silent:       a.trips.Silent,
		Shared:       !a.alone(),
	}
}

// openTables makes what writes the kernel's tables and looks after its flows.
func (a *agent) openTables(context.Context) (err error) {
	if a.tables, err = maps.Open(a.loader.Maps(), a.tableOptions()); err != nil {
		return err
	}
	t := a.config.Timeouts
	flows, err := maps.OpenFlows(a.loader.Maps(), a.loader.Expire(), maps.Timeouts{
		SYN: t.Syn, Established: t.Established, Closing: t.Closing, UDP: t.UDP,
	})
	if err != nil {
		return err
	}
	if a.pacer, err = flycast.NewPacer(flycast.PacerConfig{Flows: flows, Period: t.Expiry, Log: a.log}); err != nil {
		return err
	}
	if err := a.openExchange(); err != nil {
		return err
	}
	a.loop, err = reconcile.NewLoop(reconcile.Config{
		Host: a.host.ID, Store: a.store, Tables: syncTables{a}, Settings: a.settings(a.loader.Maps()), OnGone: a.pacer.Hurry, OnApplied: a.applied, Log: a.log,
	})
	return err
}

// openMachines makes what runs Machines and gives them ports.
func (a *agent) openMachines(context.Context) (err error) {
	if a.driver, err = machine.NewDriver(a.config.driver()); err != nil {
		return err
	}
	a.ports = newPorts(a.loader, a.loop, a.hostPort().Ifindex, a.driver.Device, a.tables.ByXDP)
	a.manager, err = machine.NewManager(machine.ManagerConfig{
		Name: a.config.Name, Driver: a.driver, Store: state.HostStore{Store: a.store, Host: a.host.ID}, Ports: a.ports, Log: a.log,
		MTU: a.config.MTU, XDP: a.config.native(), StopTimeout: a.config.Timeouts.Stop, RelayIdle: a.config.Timeouts.UDP,
	})
	return err
}

// close lets go of everything in the reverse order of opening.
func (a *agent) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	return errors.Join(errs...)
}
