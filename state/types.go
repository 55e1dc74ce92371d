package state

import (
	"cmp"
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
	// Destroying is set once the app is being removed: it takes no new Machine, and
	// its record goes with the last one it has.
	Destroying bool `json:"destroying,omitempty"`
}

// Host is one host of the fleet. Its number is never reused.
type Host struct {
	ID        sixpn.Host `json:"id"`
	Name      string     `json:"name"`
	Region    string     `json:"region"`
	Token     string     `json:"token,omitempty"` // finds it again when it does not know its number
	CreatedAt time.Time  `json:"created_at"`
	PublicKey string     `json:"public_key,omitempty"` // of the mesh, base64
	Endpoint  string     `json:"endpoint,omitempty"`   // address and port on the underlay: UDP of the mesh, TCP of the fleet's service
	Mesh      MeshMode   `json:"mesh,omitempty"`       // how it sends to other hosts; see Host.MeshMode
	Gateway   bool       `json:"gateway,omitempty"`    // WireGuard peers can connect there
	Draining  bool       `json:"draining,omitempty"`   // takes no new Machines
	Version   string     `json:"version,omitempty"`    // of its agent
	// CertificateKey is what the host shows itself by: see the function of this name. ""
	// for a host that is alone.
	CertificateKey string `json:"certificate_key,omitempty"`
}

// MeshMode is how a host sends packets to other hosts, and expects theirs.
type MeshMode string

// The modes.
const (
	MeshWireGuard MeshMode = "wireguard" // encrypted
	MeshNative    MeshMode = "native"    // as they are, by the routes of the fabric
)

// MeshMode is the host's mode, "" for a host that is alone. Records of before there was a
// choice have none written.
func (h Host) MeshMode() MeshMode {
	if h.Endpoint == "" {
		return ""
	}
	return cmp.Or(h.Mesh, MeshWireGuard)
}

// Reach says whether packets pass between two hosts, which need the same mode.
func (h Host) Reach(other Host) bool { return h.ID == other.ID || h.MeshMode() == other.MeshMode() }

// VIP is an allocation of a Flycast address: clients of Network reach App by it.
type VIP struct {
	Network   sixpn.Network `json:"network"` // whose clients see it; another org's for a cross-network one
	Number    uint32        `json:"number"`  // N of fdaa:<net>:0:1::N
	App       string        `json:"app"`
	Request   string        `json:"request,omitempty"` // id of the request that allocated it, if that gave one
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
	Suspending MachineState = "suspending"
	Suspended  MachineState = "suspended" // frozen where it was; started again it goes on
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
	Desired    MachineState  `json:"desired"` // Started, Stopped, Suspended or Destroyed: what the last command asked for
	State      MachineState  `json:"state"`   // what its host last saw
	InstanceID string        `json:"instance_id"`
	// Pending is an InstanceID whose run was asked for while another had to end
	// first, until that run begins.
	Pending  string        `json:"pending,omitempty"`
	Stop     StopConfig    `json:"stop,omitzero"` // how the last stop was asked for; what it leaves out, Config says
	Config   MachineConfig `json:"config"`
	ExitCode *int          `json:"exit_code,omitempty"` // of the last run, nil before the first ended; 128+signal
	Message  string        `json:"message,omitempty"`   // why it failed, for people
	Restarts int           `json:"restarts,omitempty"`  // by policy, since it was last asked to start
	Cordoned bool          `json:"cordoned,omitempty"`  // takes no new Flycast flow until it is uncordoned
	// CordonLease is the nonce of the lease that Cordoned ends with; empty: of none.
	CordonLease string        `json:"cordon_lease,omitempty"`
	Lease       *Lease        `json:"lease,omitempty"`
	Migration   *Migration    `json:"migration,omitempty"` // to another host, nil: it is not on its way, nor did the last one fail
	Checks      []CheckStatus `json:"checks,omitempty"`    // by name, of the run that InstanceID names; written by its host when one changes
	Relayed     []uint16      `json:"relayed,omitempty"`   // internal ports, of TCP or UDP, on which it listens with IPv4 only, so that Flycast reaches it through a relay that hides the client's address
	Events      []Event       `json:"events,omitempty"`    // the latest MaxEvents, newest first
	CreatedAt   time.Time     `json:"created_at"`
	UpdatedAt   time.Time     `json:"updated_at"`
}

// Addr is the Machine's primary address.
func (m Machine) Addr() netip.Addr { return sixpn.MachineAddr(m.Network, m.Host, m.Number) }

// ProcessGroupKey is the metadata that names a Machine's process group. An older one,
// which counts where this is missing, is read only.
const ProcessGroupKey = "fly_process_group"

var processGroupKeys = []string{ProcessGroupKey, "process_group"}

// ProcessGroup is the Machine's process group, "app" when its metadata has none.
func (m Machine) ProcessGroup() string {
	for _, key := range processGroupKeys {
		if g := m.Config.Metadata[key]; g != "" {
			return g
		}
	}
	return "app"
}

// Lease keeps everyone who does not know its nonce from changing a Machine until
// it expires.
type Lease struct {
	Nonce       string    `json:"nonce"`
	Owner       string    `json:"owner,omitempty"`
	Description string    `json:"description,omitempty"`
	Version     string    `json:"version"` // InstanceID of the Machine when the lease was taken
	ExpiresAt   time.Time `json:"expires_at"`
}

// CheckStatus is what a health check last said.
type CheckStatus struct {
	Name      string    `json:"name"`
	Service   int       `json:"service"` // index in Config.Services, -1 for a check of Config.Checks
	Status    string    `json:"status"`  // CheckPassing, CheckWarning or CheckCritical
	Output    string    `json:"output,omitempty"`
	UpdatedAt time.Time `json:"updated_at"`
}

// What a check can say. CheckWarning is a check that has not been answered yet:
// until its grace period is over its Machine counts as healthy.
const (
	CheckPassing  = "passing"
	CheckWarning  = "warning"
	CheckCritical = "critical"
)

// Event is something that happened to a Machine.
type Event struct {
	ID        string       `json:"id"`
	Type      string       `json:"type"`   // "launch", "start", "exit", "stop", "suspend", "resume", "restart", "update", "destroy", "cordon", "migrate", …
	Status    MachineState `json:"status"` // of the Machine afterwards
	Source    string       `json:"source"` // "user" or "flyd", as the Machines API calls who did it
	Timestamp time.Time    `json:"timestamp"`
	ExitCode  *int         `json:"exit_code,omitempty"` // of "exit"
	Requested bool         `json:"requested,omitempty"` // of "exit": it had been asked to stop
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
	DNS         DNS               `json:"dns,omitzero"`
	Checks      map[string]Check  `json:"checks,omitempty"` // of the Machine as a whole, by name
	Attach      *Attach           `json:"attach,omitempty"` // nil: a process that this host starts
	Image       string            `json:"image,omitempty"`  // kept for clients that look at it; it has no meaning here
	Guest       *Guest            `json:"guest,omitempty"`  // likewise
}

// Attach is a Machine that something else runs: a virtual machine behind a tap, a
// veth, or a network namespace. Exactly one member is set. Such a Machine has no
// command; it is started once its device is a port of the router.
type Attach struct {
	Device string `json:"device,omitempty"` // an existing tap or veth of the agent's network namespace
	NetNS  string `json:"netns,omitempty"`  // path of a network namespace, which gets an eth0
	Pid    int    `json:"pid,omitempty"`    // of a process in that network namespace, for the time of the attachment
	MAC    string `json:"mac,omitempty"`    // of the guest behind Device; empty: learned for a veth, else from its first frames
}

// Guest is the size of a Machine elsewhere.
type Guest struct {
	CPUKind  string `json:"cpu_kind,omitempty"`
	CPUs     int    `json:"cpus,omitempty"`
	MemoryMB int    `json:"memory_mb,omitempty"`
}

// DNS is how a Machine resolves names, and whether it has one.
type DNS struct {
	SkipRegistration bool        `json:"skip_registration,omitempty"` // no name under .internal leads to it
	Nameservers      []string    `json:"nameservers,omitempty"`       // of its /etc/resolv.conf; default fdaa::3
	Searches         []string    `json:"searches,omitempty"`
	Options          []DNSOption `json:"options,omitempty"`
	Hostname         string      `json:"hostname,omitempty"` // default its id
}

// DNSOption is one option of resolv.conf(5).
type DNSOption struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// Check is a health check. Of a service, Port 0 means its internal port.
type Check struct {
	Type          string        `json:"type"` // "tcp" or "http"
	Port          uint16        `json:"port,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"`     // 0: DefaultCheckInterval
	Timeout       time.Duration `json:"timeout,omitempty"`      // 0: DefaultCheckTimeout
	GracePeriod   time.Duration `json:"grace_period,omitempty"` // after a start, in which failures do not count
	Method        string        `json:"method,omitempty"`       // of http; default GET
	Path          string        `json:"path,omitempty"`         // default /
	Protocol      string        `json:"protocol,omitempty"`     // "http" (default) or "https"
	TLSSkipVerify bool          `json:"tls_skip_verify,omitempty"`
	TLSServerName string        `json:"tls_server_name,omitempty"`
	Headers       []Header      `json:"headers,omitempty"`
}

// Header is one header field of a check's request.
type Header struct {
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

// What a check without these takes.
const (
	DefaultCheckInterval = 15 * time.Second
	DefaultCheckTimeout  = 2 * time.Second
)

// MaxEvents is how many events a Machine's record keeps.
const MaxEvents = 32

// Init is what runs in a Machine.
type Init struct {
	Exec []string `json:"exec,omitempty"` // the command and its arguments
}

// Restart says whether a Machine that exited by itself is started again.
type Restart struct {
	Policy     string `json:"policy,omitempty"` // "no" (default), "on-failure", "always"
	MaxRetries int    `json:"max_retries,omitempty"`
}

// Again is whether a run that ended by itself is followed by another, as long as there
// are retries left.
func (r Restart) Again(failed bool) bool {
	return r.Policy == "always" || r.Policy == "on-failure" && failed
}

// Again is Restart.Again of the Machine's latest run.
func (m Machine) Again() bool {
	return m.Config.Restart.Again(m.ExitCode == nil || *m.ExitCode != 0)
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
	Checks       []Check       `json:"checks,omitempty"`
	// Kept for what starts and stops Machines by their traffic, which is not built yet.
	Autostop           string `json:"autostop,omitempty"` // "off", "stop" or "suspend"
	Autostart          *bool  `json:"autostart,omitempty"`
	MinMachinesRunning int    `json:"min_machines_running,omitempty"`
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
