package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/state"
)

// Config is what an agent is told. Every field has a default, which stands, with
// what else is to be known of it, in the table of fields.
type Config struct {
	Name     string // names the socket, the pins, the private namespace
	StateDir string // durable
	RunDir   string // sockets and namespace pins, shared by all agents
	PinDir   string // under bpffs, shared by all agents
	Cgroup   string // in which sixpn-NAME, with the Machines' cgroups, is made
	HostName string // in the store
	Region   string // where this host is

	Underlay string // where other hosts reach this one, ADDRESS or ADDRESS:PORT; "": it is alone
	Mesh     string // how packets travel between hosts, a state.MeshMode
	Join     string // token by which this host becomes one of a fleet

	Store     []string // URLs of an etcd cluster of the operator's; empty: the fleet's own store
	StoreCert string   // file of the client certificate for it, PEM, likewise below
	StoreKey  string   // "": it is in StoreCert
	StoreCA   string   // who signed the cluster's certificates; "": those that the host trusts
	StoreUser string   // USER:PASSWORD

	MTU           uint16 // of Machines that ask for none
	FlowTableSize uint32 // Flycast flows of this host
	ResetFlows    bool   // give up flows that this build cannot read
	DetachOnExit  bool   // remove everything when the agent ends, as Reset does

	EventRate    uint32 // sampled drops that one CPU may report a second
	MachineFlows uint32 // Flycast flows that one Machine may have
	NetworkFlows uint32 // the same of one network on this host

	MetricsListen string         // host:port of the Prometheus endpoint, "off" for none
	Upstreams     []string       // host:port of the resolvers for the rest of the world; empty: those of the host
	Regions       []RegionConfig // beside the ones that are built in

	LogLevel  string // "debug", "info", "warn" or "error"
	LogFormat string // "text" or "json"

	Timeouts Timeouts
	Version  string // of the program, for status
	// Clock is what other hosts are told that the time is. nil: time.Now.
	Clock func() time.Time
	Log   *slog.Logger
	// Ready is called once the API answers. nil: nobody wants to know.
	Ready func(socket string)
}

// Timeouts are the agent's intervals.
type Timeouts struct {
	Stop        time.Duration // of a Machine before SIGKILL
	Syn         time.Duration // of a Flycast flow without an answer
	Established time.Duration // of an idle TCP flow
	Closing     time.Duration // of a TCP flow after both FINs or a reset
	UDP         time.Duration // of an idle UDP flow
	Grace       time.Duration // before a table element that nothing points to is reused
	Expiry      time.Duration // from one pass over the flow table to the next
	Repair      time.Duration // from one look for lost pins to the next
	Certificate time.Duration // life of this host's certificate
	Heartbeat   time.Duration // from one sign of life of this host to the next
	RoundTrip   time.Duration // from one echo request to another host to the next
	Load        time.Duration // from one telling of changed load to another host to the next
	Call        time.Duration // for another host's agent to answer
	HostExpiry  time.Duration // after the last one of another host, which counts as gone then
	Connect     time.Duration // for a connection to another host's agent
	Silence     time.Duration // of an agent that was asked something, before it is asked whether it is there
	Members     time.Duration // from one look at where the store is to the next
	Replace     time.Duration // after which another host takes the place of a lost member of the store
}

// RegionConfig is a region of the operator's own.
type RegionConfig struct {
	Code      string  // three lower-case letters
	Name      string  // the city, for people
	Latitude  float64 // degrees north
	Longitude float64 // degrees east
}

const (
	defaultMetricsListen = "127.0.0.1:9464"

	defaultRegion = "iad"
	defaultRunDir = "/run/sixpn"
	defaultPinDir = "/sys/fs/bpf/sixpn"
	stateParent   = "/var/lib/sixpn"
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

func setDefault[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// The checks of single settings; their errors say what was expected.

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return errors.New("expected 1 to 32 lower-case letters, digits and inner hyphens")
	}
	return nil
}

func checkHostName(name string) error {
	if err := state.ValidateHostName(name); err != nil {
		return errors.New(messageOf(err))
	}
	return nil
}

func absolute(path string) error {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return errors.New("expected an absolute path")
	}
	return nil
}

func (c *Config) orName() string {
	if c.Name == "" {
		return fields[0].def
	}
	return c.Name
}

// complete fills in defaults and refuses what cannot work. Its error wraps a
// *ConfigError unless the host is at fault.
func (c *Config) complete() error {
	for _, f := range fields {
		v := f.of(c)
		if v.isZero() && f.def != "" {
			if err := v.Set(f.def); err != nil {
				return fmt.Errorf("the default %s of %s is wrong: %w", f.def, f.key, err)
			}
		}
		// A program may have set it without Set. Regions are checked as a whole.
		if again := f.of(&Config{}); !v.isZero() && f.key != "regions" {
			if err := again.Set(v.String()); err != nil {
				return f.wrong("", v.String(), err)
			}
		}
	}
	setDefault(&c.StateDir, filepath.Join(stateParent, c.Name))
	if c.HostName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the name of this host: %w", err)
		}
		c.HostName = hostLabel(name)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if err := c.checkFleet(); err != nil {
		return err
	}
	// Sockets below it: the agent's own, and the longest of a Machine's.
	for _, socket := range []string{c.socket(), filepath.Join(c.machineRun(), "12345678901234.sock")} {
		if len(socket) > maxSocketPath {
			return &ConfigError{Key: "run_dir", Value: c.RunDir, Message: fmt.Sprintf(
				"it is too long: a socket such as %s would have a path of %d bytes, and %d are possible; choose a shorter one", socket, len(socket), maxSocketPath)}
		}
	}
	if !c.hasRegion() {
		if err := state.ValidateRegion(c.Region); err != nil {
			return &ConfigError{Key: "region", Message: messageOf(err)} // which has the value
		}
	}
	return nil
}

// maxSocketPath is sun_path without its final zero, unix(7).
const maxSocketPath = 107

// hasRegion says whether this host is in a region of the operator's.
func (c *Config) hasRegion() bool {
	return slices.ContainsFunc(c.Regions, func(r RegionConfig) bool { return r.Code == c.Region })
}

// setRegions has the operator's regions known to the whole process, once, before any
// record is read.
func (c *Config) setRegions() error {
	var extra []state.Region
	for _, r := range c.Regions {
		extra = append(extra, state.Region(r))
	}
	if err := state.SetRegions(extra); err != nil {
		return &ConfigError{Key: "regions", Message: err.Error()}
	}
	return nil
}

// messageOf is an error of state without its field, which has another name here.
func messageOf(err error) string {
	if refused := (*state.Error)(nil); errors.As(err, &refused) {
		return refused.Message
	}
	return err.Error()
}

// needRoot is asked before anything is touched.
func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the agent needs root: it loads eBPF programs and makes network devices")
	}
	return nil
}

// hostLabel makes a host's name one DNS label, as records of hosts need it.
func hostLabel(name string) string {
	label := make([]byte, 0, len(name))
	for _, c := range []byte(name) {
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '.': // of a full name only the first label
			if len(label) > 0 {
				return string(trimHyphens(label))
			}
			continue
		default:
			c = '-'
		}
		label = append(label, c)
	}
	return string(trimHyphens(label))
}

func trimHyphens(label []byte) []byte {
	for len(label) > 0 && label[0] == '-' {
		label = label[1:]
	}
	label = label[:min(len(label), 63)]
	for len(label) > 0 && label[len(label)-1] == '-' {
		label = label[:len(label)-1]
	}
	if len(label) == 0 {
		return []byte("host")
	}
	return label
}

// The places of one agent.
func (c *Config) socket() string        { return filepath.Join(c.RunDir, c.Name+".sock") }
func (c *Config) pins() string          { return filepath.Join(c.PinDir, c.Name) }
func (c *Config) netnsDir() string      { return filepath.Join(c.RunDir, "netns") }
func (c *Config) netnsPath() string     { return filepath.Join(c.netnsDir(), c.Name) }
func (c *Config) machineDir() string    { return filepath.Join(c.StateDir, "machines") }
func (c *Config) machineRun() string    { return filepath.Join(c.RunDir, "machines", c.Name) }
func (c *Config) idDir() string         { return filepath.Join(c.RunDir, "ids") }
func (c *Config) storeDir() string      { return filepath.Join(c.StateDir, "store") }
func (c *Config) lastStatePath() string { return filepath.Join(c.StateDir, "last-state") }
func (c *Config) ledgerPath() string    { return filepath.Join(c.StateDir, "shares") }
func (c *Config) identityPath() string  { return filepath.Join(c.StateDir, "host.json") }

// router is the configuration of this agent's loader.
func (c *Config) router() loader.Config {
	return loader.Config{
		Name: c.Name, PinRoot: c.pins(), FlowTableSize: c.FlowTableSize, ResetFlows: c.ResetFlows, Log: c.Log,
		Constants: loader.Constants{EventsPerSecond: c.EventRate},
	}
}

// private is the configuration of this agent's private namespace.
func (c *Config) private() netns.PrivateConfig {
	return netns.PrivateConfig{Name: c.Name, Path: c.netnsPath(), MTU: c.MTU}
}

// driver is the configuration of this agent's machine driver.
func (c *Config) driver() machine.DriverConfig {
	return machine.DriverConfig{
		Name: c.Name, Dir: c.machineDir(), RunDir: c.machineRun(), IDDir: c.idDir(), Cgroup: c.Cgroup, Log: c.Log,
	}
}
