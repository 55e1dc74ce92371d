package wireguard

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
)

// engineName is what an engine is called, as the first argument of its command
// line says and process lists show. The second says what it is to do.
const engineName = "sixpn-wireguard"

// readyFD is the descriptor that an engine is born with and says on how its start
// went: nothing but its end if all is well, else why not.
const readyFD = 3

// ready is what an engine says when it is at work. An engine that says nothing
// did not live to.
const ready = "ready"

// engineSpec is what an engine is told.
type engineSpec struct {
	Device string `json:"device"`
	Alias  string `json:"alias"`
	MTU    uint16 `json:"mtu"`  // of the device, bytes
	Port   uint16 `json:"port"` // UDP, of both families
	Log    string `json:"log"`  // standard error is open on it
}

// specArgument is how a spec is handed to an engine.
func specArgument(s engineSpec) (string, error) {
	b, err := json.Marshal(s)
	return string(b), err
}

// Main must be the first call of a program that opens a mesh, tests included: the
// program starts itself again as the engine. There it does the engine's work and
// never returns; else it returns false at once.
func Main() bool {
	if len(os.Args) != 2 || os.Args[0] != engineName {
		return false
	}
	var spec engineSpec
	err := json.Unmarshal([]byte(os.Args[1]), &spec)
	if err == nil {
		err = runEngine(spec)
	}
	code := 0
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", engineName, err)
		code = 1
	}
	// Passes by what os.Exit does first: nothing is left to do, and the race detector
	// would do that for a second.
	syscall.Exit(code)
	return true
}
