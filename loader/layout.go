package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// compatible returns nil if this build can use a running map. Sizes are not
// enough: two fields that changed places keep them, so the types that the kernel
// holds of the map are compared too, by name, offset and size of every field.
func compatible(spec *ebpf.MapSpec, running *ebpf.Map) error {
	if err := spec.Compatible(running); err != nil {
		return err
	}
	types, err := typesOf(running)
	if err != nil || types == nil {
		return err
	}
	return sameTypes(spec, types)
}

// sameTypes returns nil if the types of a running map are this build's.
func sameTypes(spec *ebpf.MapSpec, types *btf.Spec) error {
	for _, wanted := range []btf.Type{spec.Key, spec.Value} {
		if wanted == nil {
			continue
		}
		structure, ok := btf.As[*btf.Struct](wanted)
		if !ok || structure.Name == "" {
			continue // a number: its size says all
		}
		if !holdsSame(types, structure) {
			return fmt.Errorf("%w: it holds %s, this build %s", ebpf.ErrMapIncompatible,
				strings.Join(holds(types, structure.Name), " and "), describe(structure))
		}
	}
	return nil
}

// typesOf reads what the kernel knows of the types of a map; nil for a kind of map
// that has none, such as ring buffers.
func typesOf(running *ebpf.Map) (*btf.Spec, error) {
	handle, err := running.Handle()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the types of %s: %w", running, err)
	}
	defer func() { _ = handle.Close() }()
	types, err := handle.Spec(nil)
	if err != nil {
		return nil, fmt.Errorf("read the types of %s: %w", running, err)
	}
	return types, nil
}

// holdsSame says whether one of the types is this struct.
func holdsSame(types *btf.Spec, structure *btf.Struct) bool {
	return slices.Contains(holds(types, structure.Name), describe(structure))
}

// holds describes every struct of a name: the types of a map may hold one twice,
// as its key and as a field of its value.
func holds(types *btf.Spec, name string) (found []string) {
	all, _ := types.AnyTypesByName(name)
	for _, t := range all {
		if structure, ok := t.(*btf.Struct); ok {
			found = append(found, describe(structure))
		}
	}
	return found
}

// describe writes a type out: {field@bit offset:type …}.
func describe(t btf.Type) string {
	switch t := btf.UnderlyingType(t).(type) {
	case nil:
		return "-"
	case *btf.Int:
		return fmt.Sprintf("int%d", t.Size*8)
	case *btf.Enum:
		return fmt.Sprintf("enum%d", t.Size*8)
	case *btf.Array:
		return fmt.Sprintf("[%d]%s", t.Nelems, describe(t.Type))
	case *btf.Struct:
		return describeMembers("struct "+t.Name, t.Size, t.Members)
	case *btf.Union:
		return describeMembers("union "+t.Name, t.Size, t.Members)
	case *btf.Pointer:
		return "pointer"
	default:
		return fmt.Sprintf("%T", t)
	}
}

func describeMembers(head string, size uint32, members []btf.Member) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d{", head, size)
	for _, member := range members {
		fmt.Fprintf(&b, " %s@%d:%s", member.Name, member.Offset, describe(member.Type))
	}
	b.WriteString(" }")
	return b.String()
}
