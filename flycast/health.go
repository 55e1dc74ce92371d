package flycast

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// CheckStore is the state as a Prober needs it: state.Store.
type CheckStore interface {
	// Wait returns the first snapshot whose revision is above after.
	Wait(ctx context.Context, after int64) (*state.Snapshot, error)
	UpdateMachine(ctx context.Context, id string, change func(*state.Machine) error) (state.Machine, int64, error)
}

// Connect opens a TCP connection from a local address that need not be configured.
type Connect func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error)

// ProberConfig configures a Prober; a number or a time that is 0 takes the default.
type ProberConfig struct {
	Host    sixpn.Host // whose Machines are checked
	Store   CheckStore
	Connect Connect        // inside the private namespace
	Roots   *x509.CertPool // who signs the certificates of checks by HTTPS; nil: those that the host trusts
	Log     *slog.Logger

	Probes        int           // under way at once, 512
	NetworkProbes int           // of one network, a quarter of them
	Writes        int           // under way at once, 16
	WriteTimeout  time.Duration // of one write, 5 s
	WriteInterval time.Duration // between the writes of a Machine whose checks flap, after the first few, 10 s
	TextInterval  time.Duration // before a record is written for the sake of what a check said alone, 1 min
	Retry         time.Duration // after a write that failed, 1 s
}

// Prober runs the health checks of the Machines of one host, from the agent's
// address in each network, and writes to their records what changed.
type Prober struct {
	config ProberConfig
	probes chan struct{} // one element for each that is under way
	writes chan struct{}
	asked  sync.Map // Machine id → *watch
}

// NewProber checks the configuration and fills in what it leaves open.
func NewProber(config ProberConfig) (*Prober, error) {
	if config.Store == nil || config.Connect == nil || config.Log == nil || config.Host == 0 {
		return nil, errors.New("flycast: ProberConfig needs Host, Store, Connect and Log")
	}
	config.Probes = cmp.Or(config.Probes, 512)
	config.NetworkProbes = cmp.Or(config.NetworkProbes, max(1, config.Probes/4))
	config.Writes = cmp.Or(config.Writes, 16)
	config.WriteTimeout = cmp.Or(config.WriteTimeout, 5*time.Second)
	config.WriteInterval = cmp.Or(config.WriteInterval, 10*time.Second)
	config.TextInterval = cmp.Or(config.TextInterval, time.Minute)
	config.Retry = cmp.Or(config.Retry, time.Second)
	return &Prober{
		config: config, probes: make(chan struct{}, config.Probes), writes: make(chan struct{}, config.Writes),
	}, nil
}

// Run works until ctx ends; it returns nil then, and no probe is under way any more.
func (p *Prober) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	watches := map[string]*watch{} // by Machine id
	for revision := int64(0); ; {
		snapshot, err := p.config.Store.Wait(ctx, revision)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("flycast: wait for the store: %w", err)
		}
		revision = snapshot.Revision
		p.follow(ctx, &running, watches, snapshot.HostMachines(p.config.Host))
	}
}

// Latest is what the checks of a Machine said last, in the order of its configuration; nil
// of one whose checks are not asked. Its record has it later, as WriteInterval and
// TextInterval say.
func (p *Prober) Latest(id string) []state.CheckStatus {
	w, ok := p.asked.Load(id)
	if !ok {
		return nil
	}
	return *w.(*watch).seen.Load()
}

// follow begins to watch the runs that are new, and ends it for those that are over.
func (p *Prober) follow(ctx context.Context, running *sync.WaitGroup, watches map[string]*watch, machines []state.Machine) {
	present := make(map[string]bool, len(watches))
	for _, m := range machines {
		if m.State != state.Started {
			continue
		}
		if w := watches[m.ID]; w != nil && w.sees(m) {
			present[m.ID] = true
			continue
		}
		checks := m.Config.HealthChecks()
		if len(checks) == 0 {
			continue
		}
		if w := watches[m.ID]; w != nil {
			w.end()
		}
		present[m.ID] = true
		own, end := context.WithCancel(ctx)
		w := &watch{prober: p, machine: m, checks: checks, latest: m.UpdatedAt, end: end, room: p.room(watches, m.Network)}
		watches[m.ID] = w
		running.Go(func() { w.run(own) })
	}
	for id, w := range watches {
		if !present[id] {
			w.end()
			delete(watches, id)
		}
	}
}

// watch is one run of a Machine, whose checks are asked.
type watch struct {
	prober  *Prober
	machine state.Machine // as it was when it was first seen
	checks  []state.NamedCheck
	latest  time.Time     // Machine.UpdatedAt of the record that was seen last
	room    chan struct{} // for the probes of its network, one element for each that is under way
	end     context.CancelFunc
	seen    atomic.Pointer[[]state.CheckStatus] // what the checks said last; never nil while it is asked
}

// sees says whether the watch is right for a Machine as it is now. A run that was
// started again by policy keeps its InstanceID.
func (w *watch) sees(m state.Machine) bool {
	if w.latest.Equal(m.UpdatedAt) {
		return true
	}
	w.latest = m.UpdatedAt
	return w.isRun(m) && reflect.DeepEqual(w.checks, m.Config.HealthChecks())
}

func (w *watch) isRun(m state.Machine) bool {
	return m.InstanceID == w.machine.InstanceID && m.Restarts == w.machine.Restarts && m.Network == w.machine.Network
}

// began is when the Machine started, as far as it is known.
func (w *watch) began() time.Time {
	for _, event := range w.machine.Events { // the newest first
		if event.Type == "start" && event.Status == state.Started {
			return event.Timestamp
		}
	}
	return time.Now()
}

// room is what all watches of a network share: it has a part of all probes, so that
// one whose servers do not answer holds up no other.
func (p *Prober) room(watches map[string]*watch, network sixpn.Network) chan struct{} {
	for _, w := range watches {
		if w.machine.Network == network {
			return w.room
		}
	}
	return make(chan struct{}, p.config.NetworkProbes)
}

// acquire waits for room for one more probe; release gives it back.
func (w *watch) acquire(ctx context.Context) (release func(), ok bool) {
	select {
	case w.room <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	select {
	case w.prober.probes <- struct{}{}:
	case <-ctx.Done():
		<-w.room
		return nil, false
	}
	return func() { <-w.prober.probes; <-w.room }, true
}
