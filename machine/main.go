package machine

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// What a supervisor and an init are called, as the first argument of their
// command line says and process lists show.
const (
	supervisorName = "sixpn-supervisor"
	initName       = "sixpn-init"
)

// Main must be the first call of a program that makes Machines, tests included:
// the program starts itself again as supervisor, init and relay. In those it
// does their work and never returns; else it returns false at once.
func Main() bool {
	var run func() error
	switch {
	case len(os.Args) == 2 && os.Args[0] == supervisorName:
		run = func() error { return runSupervisor(os.Args[1]) }
	case len(os.Args) == 1 && os.Args[0] == initName:
		run = runInit
	case len(os.Args) > 1 && os.Args[0] == relayName:
		run = func() error { return runRelay(os.Args[1:]) }
	default:
		return false
	}
	// The main thread must stay what it is: a supervisor's is the parent whose
	// death kills init, an init's keeps all its capabilities.
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		exit(1)
	}
	exit(0)
	return true
}

// exit ends a supervisor or an init. It passes by what os.Exit does first, as
// nothing is left to do, and the race detector would do that for a second.
func exit(code int) { syscall.Exit(code) }
