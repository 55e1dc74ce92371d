package bpf

import "sync"

// DropReason says why the router did not forward a packet: enum drop_reason of
// types.h. 0 is "it did".
type DropReason = RouterDropReason

var reasonNames = sync.OnceValue(func() []string { return enumNames("drop_reason", "DROP_", "DROP_REASONS") })

// String is the reason as commands and metrics print it, e.g. "spoofed_source".
// A value that this build does not know is printed as "reason_<number>".
func (r RouterDropReason) String() string { return nameOf(uint64(r), reasonNames(), "reason") }

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
