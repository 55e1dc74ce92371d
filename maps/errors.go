package maps

import (
	"fmt"
	"strings"
)

// CapacityError says that a table is full. What it names is not in the tables.
type CapacityError struct {
	Table string // the kernel's name for it
	What  string // what found no room
	Max   uint32 // elements it has
	Hint  string // what to do
}

func (e *CapacityError) Error() string {
	return fmt.Sprintf("maps: %s: table %q is full: all its %d elements are in use: %s", e.What, e.Table, e.Max, e.Hint)
}

// RefusedError lists all that found no room in a Sync that otherwise succeeded:
// everything else is applied.
type RefusedError struct {
	Errors []*CapacityError // at least one
}

func (e *RefusedError) Error() string {
	const shown = 3
	var text []string
	for _, refused := range e.Errors[:min(shown, len(e.Errors))] {
		text = append(text, refused.Error())
	}
	if more := len(e.Errors) - shown; more > 0 {
		text = append(text, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(text, "; ")
}

// Tables says whether one of these tables refused something.
func (e *RefusedError) Tables(names ...string) bool {
	for _, refused := range e.Errors {
		for _, name := range names {
			if refused.Table == name {
				return true
			}
		}
	}
	return false
}

// hints say what to do about a full table.
var hints = map[string]string{
	tablePorts:        "remove Machines from this host",
	tableMachines:     "remove Machines or WireGuard peers from this host",
	tableQuotas:       "remove Machines from this host, or wait for the flows of removed ones to end",
	tableVIPs:         "release addresses of the networks on this host",
	tableAllocations:  "release addresses that other networks have for apps on this host, or publish fewer ports there",
	tableServices:     "release addresses or publish fewer ports in the networks on this host",
	tableRanges:       "publish fewer or better aligned port ranges in the networks on this host",
	tableBackends:     "wait for the flows of backends that are gone to end, or publish fewer ports",
	tableMaglev:       "publish fewer ports, or fewer backends a port",
	tablePortCounters: "remove Machines from this host",
}
