// Package loader puts the router into the kernel and keeps it there: it loads and
// pins programs, maps and links, takes over what a former agent left running,
// replaces it with a newer build without losing a packet, and opens and closes
// the router's devices in the one order that never leaves a device open.
//
// The running program is the truth, and below PinRoot is only a copy of it:
//
//	links/IFINDEX    the tcx link of a device
//	xdp/IFINDEX      and the XDP link of the uplink
//	vN/MAP           every map of version N
//	vN/sixpn_mesh    its program for the mesh
//	vN/sixpn_uplink  for the host's own device that leads to other hosts
//	vN/sixpn_xdp     on that in its driver, or sixpn_generic where that has no XDP
//	vN/sixpn_router  and for every other device, pinned last: a version without it is not complete
package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/netns"
)

// Constants are the values that are fixed when the programs are loaded. The tag
// is the variable's name in the C. A zero leaves the default of the C.
type Constants struct {
	Host            sixpn.Host `bpf:"host"`
	EventsPerSecond uint32     `bpf:"events_per_second"` // sampled drops, a CPU
}

// Config says whose router is opened, and with what.
type Config struct {
	Name      string // the agent's: devices and pins carry it
	PinRoot   string // "": /sys/fs/bpf/sixpn/NAME; no other agent may use it
	Constants Constants
	// FlowTableSize is the capacity of a new flow table, 0 for the default. A
	// table that exists keeps its size.
	FlowTableSize uint32
	// ResetFlows allows to begin with an empty flow table when this build cannot
	// read the running one. Without it Open fails, and the data plane goes on.
	ResetFlows bool
	// Fill is called when maps of a changed layout had to be made again, before
	// the new program runs. old holds the running maps in this build's layout (nil
	// where this build's is new to it), new those of this build; the same map where
	// nothing is left to do. What the flow table refers to (backends, backend_load,
	// quotas) and what hosts agreed on (shares, fences, fenced) is carried over; all
	// else is empty. An error swaps nothing. Without Fill such a build refuses to start.
	Fill func(old, new *bpf.RouterMaps) error
	// Namespace is where the devices are; nil: the process's own.
	Namespace *netns.Namespace
	Log       *slog.Logger

	load    func() (*ebpf.CollectionSpec, error) // tests: another build
	loadXDP func() (*ebpf.CollectionSpec, error) // likewise
	step    func(string) error                   // tests: an error here is a kill at this instant
}

// Errors that a caller may want to tell apart.
var (
	ErrKernel    = errors.New("the kernel has no tcx; sixpn needs Linux 6.6 or newer with CONFIG_NET_XGRESS and CONFIG_BPF_SYSCALL")
	ErrFlowTable = errors.New("this build cannot read the running flow table; " +
		"run the build that made it, or start once with --reset-flows, which breaks established Flycast connections")
	ErrForeign = errors.New("the device belongs to another agent")
)

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (c *Config) complete() error {
	if !validName.MatchString(c.Name) {
		return fmt.Errorf("agent name %q: expected up to 63 lower-case letters, digits and inner hyphens", c.Name)
	}
	if c.PinRoot == "" {
		c.PinRoot = filepath.Join(bpffs, "sixpn", c.Name)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.load == nil {
		c.load = bpf.LoadRouter
	}
	if c.loadXDP == nil {
		c.loadXDP = bpf.LoadUplink
	}
	if c.step == nil {
		c.step = func(string) error { return nil }
	}
	return nil
}

// Loader holds the router of one agent. Its methods may be called at once.
type Loader struct {
	config Config
	build  *build
	filter *ebpf.Program

	mu       sync.Mutex
	programs map[string]*ebpf.Program // those on devices, by name in the C
	expire   *ebpf.Program
	all      map[string]*ebpf.Map // by name in the C, and the build map
	maps     bpf.RouterMaps
	links    map[uint32]link.Link // by ifindex
	kinds    map[uint32]string    // the name of the program that each link shall have
	xdp      map[uint32]link.Link // by ifindex, of uplinks
	modes    map[uint32]string    // likewise the name of the program
	version  int
	opened   Opened

	// What is left to do of counts and shares when all devices have this build's program.
	carried    []*carriedCounts
	sharesFrom *ebpf.Map // of the build before; nil: they are carried over, or there are none
}

// Opened says what Open found and did.
type Opened struct {
	Adopted  bool     // a router was running, or its pins were there
	Replaced bool     // it was another build, and this one took its place
	Made     []string // maps that replaced running ones of another layout
}

// Open loads the router, or takes over the one that runs under this name. When
// it returns, every device with a link runs this build's program.
func Open(ctx context.Context, config Config) (*Loader, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	l := &Loader{
		config: config, links: map[uint32]link.Link{}, kinds: map[uint32]string{},
		xdp: map[uint32]link.Link{}, modes: map[uint32]string{},
		programs: map[string]*ebpf.Program{}, all: map[string]*ebpf.Map{},
	}
	if err := l.open(ctx); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("open the router of agent %q: %w", config.Name, err)
	}
	return l, nil
}

func (l *Loader) open(ctx context.Context) (err error) {
	if err := l.in(probe); err != nil {
		return err
	}
	if err := ensureRoot(l.config.PinRoot); err != nil {
		return err
	}
	if l.build, err = newBuild(l.config); err != nil {
		return err
	}
	if l.filter, err = newFilterProgram(); err != nil {
		return err
	}
	if err := l.adoptLinks(); err != nil {
		return err
	}
	if err := l.adoptXDP(); err != nil {
		return err
	}
	running, err := l.findRunning()
	if err != nil {
		return err
	}
	defer running.close()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.load(running); err != nil {
		return err
	}
	if err := l.repin(); err != nil {
		return err
	}
	if err := l.updateLinks(); err != nil {
		return err
	}
	if err := l.settleCounts(); err != nil {
		return err
	}
	return l.removeOtherVersions()
}

// Maps are the router's tables. They stay the same for the Loader's life.
func (l *Loader) Maps() *bpf.RouterMaps { return &l.maps }

// Expire is the program that judges entries of the flow table, of type syscall.
func (l *Loader) Expire() *ebpf.Program { return l.expire }

// Router is the program on the devices of Machines and of the host.
func (l *Loader) Router() *ebpf.Program { return l.programs[routerName] }

// Mesh is the program on the device that leads to other hosts.
func (l *Loader) Mesh() *ebpf.Program { return l.programs[meshName] }

// Uplink is the program on the host's own device that leads to other hosts.
func (l *Loader) Uplink() *ebpf.Program { return l.programs[uplinkName] }

// Opened says what Open found and did.
func (l *Loader) Opened() Opened { return l.opened }

// Devices are the ifindexes that carry our link, in order.
func (l *Loader) Devices() []uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetGone()
	return slices.Sorted(maps.Keys(l.links))
}

// Repair writes pins and drop filters that are missing, as after somebody removed
// them, and forgets devices that are gone. The agent calls it from time to time.
func (l *Loader) Repair() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetGone()
	if err := ensureRoot(l.config.PinRoot); err != nil {
		return err
	}
	for ifindex := range l.links {
		if l.kinds[ifindex] == uplinkName {
			continue // it carries the host's own traffic
		}
		if err := l.in(func() error {
			device, err := deviceOf(ifindex)
			if isNoDevice(err) {
				return nil // it went while we looked
			}
			if err != nil {
				return err
			}
			return l.closeDevice(device)
		}); err != nil {
			return fmt.Errorf("repair device %d: %w", ifindex, err)
		}
	}
	return l.repin()
}

// Close lets go of everything; what is pinned goes on.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	l.closeCounts()
	for x := range l.allLinks() {
		errs = append(errs, x.Close())
	}
	for _, m := range l.all {
		errs = append(errs, m.Close())
	}
	for _, p := range append(slices.Collect(maps.Values(l.programs)), l.expire, l.filter) {
		errs = append(errs, p.Close())
	}
	l.links, l.xdp, l.all = map[uint32]link.Link{}, map[uint32]link.Link{}, map[string]*ebpf.Map{}
	return errors.Join(errs...)
}

// in runs fn where the devices are.
func (l *Loader) in(fn func() error) error { return l.config.Namespace.Do(fn) }
