package machine

import (
	"net"
	"net/netip"
	"time"

	"github.com/sixpn/sixpn/state"
)

// What tests look at inside.

// DirectoryOf is a Machine's directory.
func DirectoryOf(d *Driver, id string) string { return d.directory(id) }

// CgroupOf is where a driver makes the cgroups of its Machines.
func CgroupOf(d *Driver) string { return d.config.Cgroup }

// SupervisorProcesses lists the process ids of a Machine's supervisor.
func SupervisorProcesses(p *Process) ([]int, error) {
	return cgroup(p.record.Cgroup).processes(supervisorLeaf)
}

// FirstID is the host's number of a Machine's user 0.
func FirstID(p *Process) uint32 { return p.record.FirstID }

// OnStep makes a driver, and the Manager above it, call f after each step.
func OnStep(d *Driver, f func(step string)) { d.reached = f }

// KillWithSupervisor ends a Machine as the end of its host does.
func KillWithSupervisor(p *Process) error { return cgroup(p.record.Cgroup).killAll() }

// Decision is what Decide returns.
type Decision struct {
	Start, GaveUp bool
	Pause         time.Duration
	Attempt       int
}

// Run is how a Machine's latest run ended.
type Run struct {
	Instance               string
	Attempt, Code          int
	Failed, Lost, Rebooted bool
	Lasted                 time.Duration
}

// Decide applies a restart policy; last nil means that the Machine never ran.
func Decide(instance string, policy state.Restart, last *Run, b Backoff) Decision {
	var l *lastRun
	if last != nil {
		l = &lastRun{
			instance: last.Instance, attempt: last.Attempt, code: last.Code, failed: last.Failed,
			lost: last.Lost, rebooted: last.Rebooted, lasted: last.Lasted,
		}
	}
	d := decide(instance, policy, l, b)
	return Decision{Start: d.start, GaveUp: d.gaveUp, Pause: d.pause, Attempt: d.attempt}
}

// ClaimIDs and ReleaseIDs are those of a driver.
var (
	ClaimIDs   = claimIDs
	ReleaseIDs = releaseIDs
)

// Relay is what a relay does with a listener.
var Relay = relay

// DatagramRelay is a relay of UDP.
type DatagramRelay = datagramRelay

// NewDatagramRelay makes one that RunDatagramRelay runs until clients is closed.
func NewDatagramRelay(clients *net.UDPConn, server netip.AddrPort, idle time.Duration, limit int) *DatagramRelay {
	return &datagramRelay{clients: clients, server: server, idle: idle, limit: limit}
}

// RunDatagramRelay runs one.
func RunDatagramRelay(r *DatagramRelay) error { return r.run() }

// Sessions is how many clients have a port.
func (r *datagramRelay) Sessions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// ReadSockets reads a socket table of /proc.
var ReadSockets = readSockets

// RelayedNews is how a run tells of changes of what is relayed: tell is called at each.
func RelayedNews() (tell func(), news <-chan struct{}) {
	p, pace := &Process{news: make(chan struct{}, 1)}, newRelayedPace()
	return func() { p.tellRelayed(pace) }, p.news
}
