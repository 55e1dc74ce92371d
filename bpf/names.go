package bpf

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// enumNames are the names of an enum in the embedded object, by value, in small letters
// and without their prefix: its type information is the one list that cannot be out of
// date. count is the name that says how many there are, "" if none does.
func enumNames(name, prefix, count string) []string {
	spec, err := LoadRouter()
	if err != nil {
		panic(fmt.Sprintf("bpf: the embedded object is unreadable, build it again: %v", err))
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName(name, &enum); err != nil {
		panic(fmt.Sprintf("bpf: the embedded object has no enum %s, generate it again: %v", name, err))
	}
	names := make([]string, 0, len(enum.Values))
	for _, value := range enum.Values {
		if value.Name == count {
			continue
		}
		for uint64(len(names)) <= value.Value {
			names = append(names, "")
		}
		names[value.Value] = strings.ToLower(strings.TrimPrefix(value.Name, prefix))
	}
	return names
}

var (
	portKindNames      = sync.OnceValue(func() []string { return enumNames("port_kind", "PORT_", "") })
	serviceActionNames = sync.OnceValue(func() []string { return enumNames("service_action", "SERVICE_", "") })
)

// String is the kind as commands and metrics print it, e.g. "machine".
func (k RouterPortKind) String() string { return nameOf(uint64(k), portKindNames(), "kind") }

// String is the action as commands print it, e.g. "balance".
func (a RouterServiceAction) String() string {
	return nameOf(uint64(a), serviceActionNames(), "action")
}

// nameOf is the name of a value; one that this build does not know has its number.
func nameOf(value uint64, names []string, what string) string {
	if value < uint64(len(names)) && names[value] != "" {
		return names[value]
	}
	return fmt.Sprintf("%s_%d", what, value)
}
