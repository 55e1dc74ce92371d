package loader

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// carriedAtOnce is how many elements one system call reads.
const carriedAtOnce = 4096

// The flow table outlives a change of the others. Its entries name an element of
// `backends` by index and generation, and are counted in the two others: those have
// to be found again as they were. So has what this host agreed on with others: flows that
// are fenced off here hold places of others, and `shares` is what this host promised to
// keep to. Everything else is what Fill makes anew, or a counter.
var (
	ofFlows  = []string{"backends", loadName, "quotas"}
	counting = []string{loadName, "quotas"} // without the flows, counts would never come down
	ofHosts  = []string{sharesName, "fences", "fenced"}
)

const (
	loadName   = "backend_load"
	sharesName = "shares"
)

// carry copies a running table into one of another layout, field by field by name. One
// whose fields cannot be told begins empty.
func carry(spec *ebpf.MapSpec, from, to *ebpf.Map) error {
	layouts, err := translation(spec, from)
	if err != nil || layouts == nil {
		return err
	}
	return layouts.each(from, func(key, value []byte, any bool) error {
		if !any && to.Type() == ebpf.Array {
			return nil // zeros are there already
		}
		if err := to.Put(key, value); err != nil {
			return fmt.Errorf("carry an element of table %s over (it holds up to %d): %w", spec.Name, to.MaxEntries(), err)
		}
		return nil
	})
}

// layouts is how a running map's keys and values become this build's.
type layouts struct {
	spec       *ebpf.MapSpec
	key, value fieldMap
	now        map[string]span // fields of this build's value
}

// each reads a running map, in this build's layout; any is false if the value is zero. What
// is passed is used again.
func (l *layouts) each(from *ebpf.Map, do func(key, value []byte, any bool) error) error {
	batch := func(size uint32) reflect.Value {
		return reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(int(size), reflect.TypeFor[byte]())), carriedAtOnce, carriedAtOnce)
	}
	keys, values := batch(from.KeySize()), batch(from.ValueSize())
	key, value := make([]byte, l.spec.KeySize), make([]byte, l.spec.ValueSize)
	var cursor ebpf.MapBatchCursor
	for {
		count, err := from.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read table %s: %w", l.spec.Name, err)
		}
		for i := range count {
			l.key.translate(keys.Index(i).Bytes(), key)
			if err := do(key, value, l.value.translate(values.Index(i).Bytes(), value)); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// span is where a field lies in a value, bytes.
type span struct{ offset, size uint32 }

// fieldMap pairs the spans of one field before and now.
type fieldMap [][2]span

// translate rewrites a value. It returns false if all of it is zero. Numbers are
// little endian: one that grew keeps its value.
func (f fieldMap) translate(from, to []byte) (any bool) {
	clear(to)
	for _, pair := range f {
		old, now := pair[0], pair[1]
		n := min(old.size, now.size)
		copy(to[now.offset:now.offset+n], from[old.offset:old.offset+n])
	}
	for _, b := range to {
		any = any || b != 0
	}
	return any
}

// translation pairs the fields of a running map with those of this build's; nil if that
// cannot be said.
func translation(spec *ebpf.MapSpec, from *ebpf.Map) (*layouts, error) {
	if from.Type() != spec.Type {
		return nil, nil
	}
	types, err := typesOf(from)
	if err != nil {
		return nil, err
	}
	l := &layouts{spec: spec, now: map[string]span{}}
	if l.key = pair(types, spec.Key, from.KeySize(), spec.KeySize); l.key == nil {
		return nil, nil
	}
	if l.value = pair(types, spec.Value, from.ValueSize(), spec.ValueSize); l.value == nil {
		return nil, nil
	}
	if structure, ok := btf.As[*btf.Struct](spec.Value); ok {
		leaves(structure, "", 0, l.now)
	}
	return l, nil
}

// pair pairs the fields of a running map's key or value, which has a size, with those of
// this build's; nil if that cannot be said.
func pair(types *btf.Spec, now btf.Type, was, size uint32) fieldMap {
	structure, ok := btf.As[*btf.Struct](now)
	if !ok {
		return fieldMap{{{0, was}, {0, size}}}
	}
	if types == nil {
		return nil
	}
	all, _ := types.AnyTypesByName(structure.Name)
	for _, t := range all {
		old, ok := t.(*btf.Struct)
		if !ok || old.Size != was {
			continue
		}
		before, after := map[string]span{}, map[string]span{}
		if !leaves(old, "", 0, before) || !leaves(structure, "", 0, after) {
			return nil
		}
		fields := fieldMap{}
		for name, where := range after {
			if was, ok := before[name]; ok {
				fields = append(fields, [2]span{was, where})
			}
		}
		return fields
	}
	return nil
}

// leaves lists the fields that are no structs themselves. It returns false for a
// type with bit fields, whose values do not lie on bytes.
func leaves(t btf.Type, path string, offset uint32, found map[string]span) bool {
	structure, ok := btf.As[*btf.Struct](t)
	if !ok {
		size, err := btf.Sizeof(t)
		if err != nil {
			return false
		}
		found[path] = span{offset, uint32(size)}
		return true
	}
	for _, member := range structure.Members {
		if member.BitfieldSize != 0 || !leaves(member.Type, path+"."+member.Name, offset+member.Offset.Bytes(), found) {
			return false
		}
	}
	return true
}
