package state

import (
	"net/netip"
	"time"

	"github.com/sixpn/sixpn"
)

// Org is a tenant. It owns a network named "default" and may own more.
type Org struct {
	Slug      string    `json:"slug"` // unique, what the command line calls it by
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// Network is one 6PN: the unit of isolation. Its number is never reused.
type Network struct {
	ID        sixpn.Network `json:"id"`
	Org       string        `json:"org"`
	Name      string        `json:"name"` // unique in its org
	CreatedAt time.Time     `json:"created_at"`
}

// App is a name for a set of Machines, unique in the fleet.
type App struct {
	Name      string        `json:"name"`
	Org       string        `json:"org"`
	Network   sixpn.Network `json:"network"`
	CreatedAt time.Time     `json:"created_at"`
}

// Host is one host of the fleet. Its number is never reused.
type Host struct {
	ID        sixpn.Host `json:"id"`
	Name      string     `json:"name"`
	Region    string     `json:"region"`
	Token     string     `json:"token,omitempty"` // finds it again when it does not know its number
	CreatedAt time.Time  `json:"created_at"`
}

// VIP is an allocation of a Flycast address: clients of Network reach App by it.
type VIP struct {
	Network   sixpn.Network `json:"network"` // whose clients see it; another org's for a cross-network one
	Number    uint32        `json:"number"`  // N of fdaa:<net>:0:1::N
	App       string        `json:"app"`
	CreatedAt time.Time     `json:"created_at"`
}

// Addr is the address that was allocated.
func (v VIP) Addr() netip.Addr { return sixpn.VIPAddr(v.Network, v.Number) }

// MachineState is where a Machine is in its life. The values are those of the
// Machines API.
type MachineState string

// The states in use.
const (
	Created    MachineState = "created"
	Starting   MachineState = "starting"
	Started    MachineState = "started"
	Stopping   MachineState = "stopping"
	Stopped    MachineState = "stopped"
	Failed     MachineState = "failed"
	Destroying MachineState = "destroying"
	Destroyed  MachineState = "destroyed"
)

// Machine is a Machine as wanted (Desired, Config) and as seen (State, the rest).
type Machine struct {
	ID         string        `json:"id"` // 14 lower-case hex digits, unrelated to Number
	Name       string        `json:"name"`
	App        string        `json:"app"`
	Network    sixpn.Network `json:"network"`
	Host       sixpn.Host    `json:"host"`
	Number     sixpn.Machine `json:"number"` // machine field of its address, never reused
	Region     string        `json:"region"`
	Desired    MachineState  `json:"desired"` // Started, Stopped or Destroyed: what the last command asked for
	State      MachineState  `json:"state"`   // what its host last saw
	InstanceID string        `json:"instance_id"`
	// Pending is an InstanceID whose run was asked for while another had to end
	// first, until that run begins.
	Pending   string        `json:"pending,omitempty"`
	Stop      StopConfig    `json:"stop,omitzero"` // how the last stop was asked for; what it leaves out, Config says
	Config    MachineConfig `json:"config"`
	ExitCode  *int          `json:"exit_code,omitempty"` // of the last run, nil before the first ended; 128+signal
	Message   string        `json:"message,omitempty"`   // why it failed, for people
	Restarts  int           `json:"restarts,omitempty"`  // by policy, since it was last asked to start
	CreatedAt time.Time     `json:"created_at"`
	UpdatedAt time.Time     `json:"updated_at"`
}

// Addr is the Machine's primary address.
func (m Machine) Addr() netip.Addr { return sixpn.MachineAddr(m.Network, m.Host, m.Number) }

// ProcessGroup is the Machine's process group, "app" when its metadata has none.
func (m Machine) ProcessGroup() string {
	for _, key := range []string{"fly_process_group", "process_group"} {
		if g := m.Config.Metadata[key]; g != "" {
			return g
		}
	}
	return "app"
}

// MachineConfig is the `config` of the Machines API, as far as it has a meaning
// here.
type MachineConfig struct {
	Init        Init              `json:"init"`
	Env         map[string]string `json:"env,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Services    []Service         `json:"services,omitempty"`
	Restart     Restart           `json:"restart"`
	AutoDestroy bool              `json:"auto_destroy,omitempty"`
	StopConfig  StopConfig        `json:"stop_config"`
	WorkDir     string            `json:"workdir,omitempty"` // directory inside, default /
	MTU         uint16            `json:"mtu,omitempty"`     // 0: the host's default
}

// Init is what runs in a Machine.
type Init struct {
	Exec []string `json:"exec,omitempty"` // the command and its arguments
}

// Restart says whether a Machine that exited by itself is started again.
type Restart struct {
	Policy     string `json:"policy,omitempty"` // "no" (default), "on-failure", "always"
	MaxRetries int    `json:"max_retries,omitempty"`
}

// StopConfig says how a Machine is stopped.
type StopConfig struct {
	Signal  string        `json:"signal,omitempty"`  // default SIGTERM
	Timeout time.Duration `json:"timeout,omitempty"` // then SIGKILL; 0: the host's default
}

// Service is one internal port of a Machine and the VIP ports that lead to it.
type Service struct {
	Protocol     string        `json:"protocol"` // "tcp" or "udp"
	InternalPort uint16        `json:"internal_port"`
	Ports        []ServicePort `json:"ports"`
	Concurrency  Concurrency   `json:"concurrency"`
}

// ServicePort is one port, or a range of ports, of the app's VIPs.
type ServicePort struct {
	Port      uint16   `json:"port,omitempty"`
	StartPort uint16   `json:"start_port,omitempty"`
	EndPort   uint16   `json:"end_port,omitempty"` // inclusive
	Handlers  []string `json:"handlers,omitempty"`
}

// Range is the first and last port, the same for a single one.
func (p ServicePort) Range() (first, last uint16) {
	if p.Port != 0 {
		return p.Port, p.Port
	}
	return p.StartPort, p.EndPort
}

// Concurrency limits live flows a backend.
type Concurrency struct {
	Type      string `json:"type,omitempty"` // "connections"
	SoftLimit uint32 `json:"soft_limit,omitempty"`
	HardLimit uint32 `json:"hard_limit,omitempty"`
}
