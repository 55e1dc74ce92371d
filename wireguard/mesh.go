package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn/netns"
)

// MinMTU is the least that a mesh device may have: what IPv6 demands of a link.
const MinMTU = 1280

const startTimeout = 10 * time.Second // by default

// Config says which mesh is wanted. Only Name, Dir and Port must be set.
type Config struct {
	Name   string // the agent's; two agents on one machine have different ones
	Dir    string // durable, of the mesh alone, see the package's comment
	Port   uint16 // UDP, on every address of both families, see the package's comment
	MTU    uint16 // of the device, bytes; default 1420, at least MinMTU
	Cgroup string // of the engine process, a directory that is made; "": the caller's own
	// Engine is "auto", the default: the kernel's WireGuard where the kernel has it;
	// "kernel"; or "userspace", the engine process.
	Engine string
	// StartTimeout bounds how long an engine may take to start or to end, and
	// AnswerTimeout how long one may take to answer.
	StartTimeout, AnswerTimeout time.Duration // default 10 s and 5 s
	// AskInterval is how often Run asks the engine whether it is at work, 5 s by
	// default. One that twice in a row gave no answer is replaced.
	AskInterval time.Duration
	// RestoreInterval is how long Run waits after a restoration failed, and how often
	// it looks for the kernel's device.
	RestoreInterval time.Duration // default 250 ms
	Log             *slog.Logger
}

// client is what of wgctrl a mesh needs.
type client interface {
	Device(name string) (*wgtypes.Device, error)
	ConfigureDevice(name string, cfg wgtypes.Config) error
	Close() error
}

// Mesh is the mesh device of an agent. Its methods may be called from several
// goroutines.
type Mesh struct {
	config  Config
	log     *slog.Logger
	home    *netns.Namespace // that of the device
	client  client
	changed chan struct{}
	// makeKernel makes the kernel's device; tests put another in its place.
	makeKernel func() error
	// reached is called after each step that changes something outside of this
	// process, so that tests can end the process there.
	reached func(step string)

	mu     sync.Mutex // held while the device is worked on
	key    wgtypes.Key
	device Device
	// wanted is what SetPeers was told last, by any agent of this name.
	wanted []Peer
	// written has the endpoint that each peer was given last. What the device says may
	// differ: a peer that moves is followed.
	written map[wgtypes.Key]netip.AddrPort
}

// Open makes the mesh device in the network namespace of the calling thread, or
// takes over what is there; what is right is not touched. A new device is down and
// one that is there stays as it was found: the caller raises it. A dead engine is
// started again, and has the peers that were wanted last. An engine that is there
// and does not answer is replaced. It needs root.
func Open(ctx context.Context, c Config) (*Mesh, error) {
	return open(ctx, c, func(*Mesh) {})
}

func open(ctx context.Context, c Config, prepare func(*Mesh)) (*Mesh, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	key, err := openKey(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("the key of the mesh: %w", err)
	}
	m := &Mesh{config: c, log: c.Log, key: key, changed: make(chan struct{}, 1), reached: func(string) {}}
	m.makeKernel = func() error { return makeKernelDevice(c.Name, c.MTU) }
	if m.wanted, err = readPeers(c.Dir); err != nil {
		m.log.Warn("the peers that were wanted last are not known; who is there stays until it is said who shall be", "error", err)
	}
	m.written = endpointsOf(m.wanted)
	if m.home, err = netns.Current(); err != nil {
		return nil, err
	}
	if m.client, err = wgctrl.New(); err != nil {
		m.home.Close()
		return nil, fmt.Errorf("open the control of WireGuard devices: %w", err)
	}
	prepare(m)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.establish(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the mesh of %q: %w", c.Name, err), m.Close())
	}
	return m, nil
}

// complete fills in what was left out and refuses what cannot be.
func (c *Config) complete() error {
	setDefault(&c.MTU, 1420)
	setDefault(&c.Engine, string(auto))
	setDefault(&c.StartTimeout, startTimeout)
	setDefault(&c.AnswerTimeout, 5*time.Second)
	setDefault(&c.AskInterval, 5*time.Second)
	setDefault(&c.RestoreInterval, 250*time.Millisecond)
	setDefault(&c.Log, slog.New(slog.DiscardHandler))
	switch {
	case c.Name == "" || c.Dir == "" || c.Port == 0:
		return errors.New("a mesh needs the agent's name, a directory and a port")
	case c.MTU < MinMTU:
		return fmt.Errorf("a mesh device of %d bytes is too small: at least %d are needed, so at least %d on the underlay", c.MTU, MinMTU, MinMTU+80)
	case c.Engine != string(auto) && c.Engine != string(kernel) && c.Engine != string(userspace):
		return fmt.Errorf("engine %q of the mesh is unknown, expected auto, kernel or userspace", c.Engine)
	}
	return nil
}

// setDefault gives a setting that was left out its value.
func setDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// establish makes or repairs the device, its engine, and what they are to know.
func (m *Mesh) establish(ctx context.Context) error {
	var link netlink.Link
	var chosen kind
	if err := m.home.Do(func() error {
		var err error
		if link, err = findDevice(m.config.Name); err != nil {
			return err
		}
		chosen, err = choose(kind(m.config.Engine), link, m.makeKernel)
		return err
	}); err != nil {
		return err
	}
	if chosen == userspace {
		if err := m.ensureEngine(ctx, link != nil); err != nil {
			return err
		}
	}
	var found netlink.Link
	if err := m.home.Do(func() (err error) {
		found, err = adjust(m.config.Name, m.config.MTU)
		return err
	}); err != nil {
		return err
	}
	m.reached("device named")
	m.device = Device{Name: found.Attrs().Name, Ifindex: uint32(found.Attrs().Index), MTU: m.config.MTU, Kernel: chosen == kernel}
	err := m.instruct(ctx, found.Attrs().RawFlags&unix.IFF_UP != 0)
	if err != nil && chosen == kernel && link == nil {
		// It is of no use to anybody, and would be a surprise.
		_ = m.home.Do(func() error { return netlink.LinkDel(found) })
	}
	return err
}

// ensureEngine adopts the engine that runs, or starts one. present says whether
// the device is there.
func (m *Mesh) ensureEngine(ctx context.Context, present bool) error {
	device := DeviceName(m.config.Name)
	endCtx, cancel := context.WithTimeout(ctx, m.config.StartTimeout)
	defer cancel()
	running, err := findEngine(device, m.home)
	switch {
	case err == nil:
		defer running.close()
		if present {
			if _, err = m.state(ctx); err == nil {
				m.log.Debug("the mesh's engine was adopted", "device", device, "process", running.pid)
				return nil
			}
			m.log.Warn("the mesh's engine does not answer and is replaced", "device", device, "process", running.pid, "error", err)
		}
		// Without its device it is about to end, and may need help.
		if err := running.kill(endCtx); err != nil {
			return err
		}
	case !errors.Is(err, errNoEngine):
		return err
	}
	spec := engineSpec{Device: device, Alias: Alias(m.config.Name), MTU: m.config.MTU, Port: m.config.Port, Log: filepath.Join(m.config.Dir, logFile)}
	if err := startProcess(endCtx, m.home, m.config.Cgroup, spec); err != nil {
		return err
	}
	m.reached("engine started")
	m.log.Info("the mesh's engine was started", "device", device, "port", m.config.Port, "log", spec.Log)
	return nil
}

// instruct tells the device its key, its port and the peers that it lacks.
func (m *Mesh) instruct(ctx context.Context, up bool) error {
	have, err := m.state(ctx)
	if err != nil {
		return err
	}
	var cfg wgtypes.Config
	if have.PrivateKey != m.key {
		cfg.PrivateKey = &m.key
	}
	// An engine has its port from its start on. The kernel binds when the link is
	// raised, which is late for an answer that names the port.
	if port := int(m.config.Port); have.ListenPort != port || m.device.Kernel && !up {
		if err := m.home.Do(func() error { return portFree(m.config.Port) }); err != nil {
			return err
		}
		cfg.ListenPort = &port
	}
	// Nobody is removed: who is there and not wanted may be news that was not noted.
	cfg.Peers = difference(have.Peers, m.wanted, m.written, false)
	if cfg.PrivateKey != nil || cfg.ListenPort != nil || len(cfg.Peers) > 0 {
		if err := m.configure(ctx, cfg); err != nil {
			return fmt.Errorf("configure %s: %w", m.device.Name, err)
		}
	}
	m.written = endpointsOf(m.wanted)
	if len(have.Peers) == 0 {
		return m.greet(ctx, cfg.Peers)
	}
	return nil
}

// greet has a new engine begin a handshake with every peer. Those may have a
// session with the one before, and would go on sending into it for 15 seconds.
func (m *Mesh) greet(ctx context.Context, peers []wgtypes.PeerConfig) error {
	if len(peers) == 0 {
		return nil
	}
	// A keepalive that is switched on is sent at once.
	for _, interval := range []time.Duration{time.Minute, 0} {
		greetings := make([]wgtypes.PeerConfig, len(peers))
		for i, p := range peers {
			greetings[i] = wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepaliveInterval: &interval}
		}
		if err := m.configure(ctx, wgtypes.Config{Peers: greetings}); err != nil {
			return fmt.Errorf("greet the peers of %s: %w", m.device.Name, err)
		}
	}
	return nil
}

// state asks the device for all that it knows.
func (m *Mesh) state(ctx context.Context) (*wgtypes.Device, error) {
	name := DeviceName(m.config.Name)
	return within(ctx, m.config.AnswerTimeout, func() (*wgtypes.Device, error) { return m.client.Device(name) })
}

func (m *Mesh) configure(ctx context.Context, cfg wgtypes.Config) error {
	name := DeviceName(m.config.Name)
	_, err := within(ctx, m.config.AnswerTimeout, func() (struct{}, error) {
		return struct{}{}, m.client.ConfigureDevice(name, cfg)
	})
	return err
}

// within bounds a call that knows no context: an engine may be stopped.
func within[T any](ctx context.Context, timeout time.Duration, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := call()
		answers <- answer{value, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case a := <-answers:
		if errors.Is(a.err, os.ErrNotExist) || errors.Is(a.err, unix.ECONNREFUSED) {
			a.err = fmt.Errorf("the mesh has no device or engine at the moment, it is made again: %w", a.err)
		}
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("the mesh's device does not answer: %w", ctx.Err())
	}
}

// PublicKey is that of the device, base64.
func (m *Mesh) PublicKey() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.key.PublicKey().String()
}

// Device is the device as it is now: Changed tells when it was made anew.
func (m *Mesh) Device() Device {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.device
}

// Changed delivers a value after Run had to make the device anew, so that it has
// another index, and nothing that was attached to the old one.
func (m *Mesh) Changed() <-chan struct{} { return m.changed }

// Close lets go of the mesh; the device and its engine go on.
func (m *Mesh) Close() error { return errors.Join(m.client.Close(), m.home.Close()) }
