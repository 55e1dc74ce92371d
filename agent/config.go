package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/loader"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/netns"
	"github.com/sixpn/sixpn/state"
)

// Config is what an agent is told. Every field but Log has a default.
type Config struct {
	Name     string // names the socket, the pins, the private namespace; default "default"
	StateDir string // durable; default /var/lib/sixpn/NAME
	RunDir   string // sockets and namespace pins, shared by all agents; default /run/sixpn
	PinDir   string // under bpffs, shared by all agents; default /sys/fs/bpf/sixpn
	Cgroup   string // under which the Machines' cgroups are made; default "sixpn-NAME" under the agent's own
	HostName string // in the store; default this host's name
	Region   string // where this host is; default "iad"

	MTU           uint16 // of Machines that ask for none; default 1420
	FlowTableSize uint32 // Flycast flows of this host; 0: the build's default
	ResetFlows    bool   // give up flows that this build cannot read
	DetachOnExit  bool   // remove everything when the agent ends, as Reset does

	EventRate    uint32 // sampled drops that one CPU may report a second; 0: the build's default
	MachineFlows uint32 // Flycast flows that one Machine may have; 0: the default of reconcile
	NetworkFlows uint32 // the same of one network on this host

	MetricsListen string         // host:port of the Prometheus endpoint, "off" for none; default 127.0.0.1:9464
	Upstreams     []string       // host:port of the resolvers for the rest of the world; empty: those of the host
	Regions       []RegionConfig // beside the ones that are built in

	Timeouts Timeouts
	Version  string // of the program, for status
	Log      *slog.Logger
	// Ready is called once the API answers. nil: nobody wants to know.
	Ready func(socket string)
}

// Timeouts are the agent's intervals; 0 takes the default.
type Timeouts struct {
	Stop        time.Duration // of a Machine before SIGKILL; default 5 s
	Syn         time.Duration // of a Flycast flow without an answer; this and the next three default to maps.DefaultTimeouts
	Established time.Duration // of an idle TCP flow
	Closing     time.Duration // of a TCP flow after both FINs or a reset
	UDP         time.Duration // of an idle UDP flow
	Grace       time.Duration // before a table element that nothing points to is reused; default of maps
	Expiry      time.Duration // from one pass over the flow table to the next; default of flycast
	Repair      time.Duration // from one look for lost pins to the next; default 10 s
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

// complete fills in defaults and refuses what cannot work.
func (c *Config) complete() error {
	setDefault(&c.Name, api.DefaultName)
	if !namePattern.MatchString(c.Name) {
		return fmt.Errorf("agent name %q is malformed: expected 1 to 32 lower-case letters, digits and inner hyphens", c.Name)
	}
	setDefault(&c.StateDir, filepath.Join(stateParent, c.Name))
	setDefault(&c.RunDir, defaultRunDir)
	setDefault(&c.PinDir, defaultPinDir)
	setDefault(&c.MetricsListen, defaultMetricsListen)
	setDefault(&c.Region, defaultRegion)
	if err := state.ValidateRegion(c.Region); err != nil {
		return err
	}
	setDefault(&c.MTU, machine.DefaultMTU)
	if c.MTU < machine.MinMTU || c.MTU > machine.MaxMTU {
		return fmt.Errorf("MTU %d is out of range: expected %d to %d", c.MTU, machine.MinMTU, machine.MaxMTU)
	}
	if c.HostName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the name of this host: %w", err)
		}
		c.HostName = hostLabel(name)
	}
	setDefault(&c.Timeouts.Stop, 5*time.Second)
	setDefault(&c.Timeouts.Syn, maps.DefaultTimeouts.SYN)
	setDefault(&c.Timeouts.Established, maps.DefaultTimeouts.Established)
	setDefault(&c.Timeouts.Closing, maps.DefaultTimeouts.Closing)
	setDefault(&c.Timeouts.UDP, maps.DefaultTimeouts.UDP)
	setDefault(&c.Timeouts.Repair, 10*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
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
func (c *Config) socket() string       { return filepath.Join(c.RunDir, c.Name+".sock") }
func (c *Config) pins() string         { return filepath.Join(c.PinDir, c.Name) }
func (c *Config) netnsDir() string     { return filepath.Join(c.RunDir, "netns") }
func (c *Config) netnsPath() string    { return filepath.Join(c.netnsDir(), c.Name) }
func (c *Config) machineDir() string   { return filepath.Join(c.StateDir, "machines") }
func (c *Config) machineRun() string   { return filepath.Join(c.RunDir, "machines", c.Name) }
func (c *Config) idDir() string        { return filepath.Join(c.RunDir, "ids") }
func (c *Config) storeDir() string     { return filepath.Join(c.StateDir, "store") }
func (c *Config) identityPath() string { return filepath.Join(c.StateDir, "host.json") }

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
