package bpf

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// DropReason says why the router did not forward a packet: enum drop_reason of
// types.h. 0 is "it did".
type DropReason = RouterDropReason

const (
	reasonEnum   = "drop_reason"
	reasonPrefix = "DROP_"
	reasonCount  = "DROP_REASONS" // how many there are, itself none
)

// reasonNames are the names of the enum in the embedded object, by value: its
// type information is the one list of reasons that cannot be out of date.
var reasonNames = sync.OnceValue(func() []string {
	spec, err := LoadRouter()
	if err != nil {
		panic(fmt.Sprintf("bpf: the embedded object is unreadable, build it again: %v", err))
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName(reasonEnum, &enum); err != nil {
		panic(fmt.Sprintf("bpf: the embedded object has no enum %s, generate it again: %v", reasonEnum, err))
	}
	names := make([]string, 0, len(enum.Values))
	for _, value := range enum.Values {
		if value.Name == reasonCount {
			continue
		}
		for uint64(len(names)) <= value.Value {
			names = append(names, "")
		}
		names[value.Value] = strings.ToLower(strings.TrimPrefix(value.Name, reasonPrefix))
	}
	return names
})

// String is the reason as commands and metrics print it, e.g. "spoofed_source".
// A value that this build does not know is printed as "reason_<number>".
func (r RouterDropReason) String() string {
	if names := reasonNames(); uint64(r) < uint64(len(names)) && names[r] != "" {
		return names[r]
	}
	return fmt.Sprintf("reason_%d", uint32(r))
}

// DropReasons lists every reason of this build but "none", by value.
func DropReasons() []DropReason {
	var reasons []DropReason
	for value, name := range reasonNames() {
		if value != 0 && name != "" {
			reasons = append(reasons, DropReason(value))
		}
	}
	return reasons
}
