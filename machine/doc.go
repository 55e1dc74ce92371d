// Package machine runs Machines: processes in namespaces and a cgroup of their
// own, each with a network device that leads to the router.
//
// Three programs of one binary take part (see Main):
//
//	agent        asks for Machines (Driver, Manager)
//	supervisor   one a Machine, a session of its own; outlives the agent
//	init         PID 1 inside the Machine; starts the command, reaps, ends with its supervisor
//
// A supervisor is known by its unix socket alone, never by a process id. The
// agent makes the listening socket before it starts the supervisor and hands it
// over, so a supervisor can be reached from its first instruction on, and a
// socket that refuses connections proves that there is none. That is what makes
// a SIGKILL of the agent harmless at every instant.
//
// What a Machine leaves on disk, under DriverConfig.Dir:
//
//	<id>/record.json      what was asked for, the boot it was for, its cgroup and id range
//	<id>/started.json     that the command of that run was started
//	<id>/attachment.json  the device of a Machine that something else runs
//	<id>/exit.json        how that run ended, written by the supervisor before it ends
//	<id>/supervisor.log   what the supervisor had to say
//	<id>/log/<n>.log      the command's output, see LogLimits
package machine
