package machine

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
