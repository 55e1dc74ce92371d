package machine

import (
	"time"

	"github.com/sixpn/sixpn/state"
)

// What tests look at inside.

// CgroupOf is the directory of the cgroups of a driver's Machines.
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

// ReadSockets reads a socket table of /proc.
var ReadSockets = readSockets
