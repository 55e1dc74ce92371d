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
// to be found again as they were. Everything else is what Fill makes anew, or a
// counter.
var (
	ofFlows  = []string{"backends", "backend_load", "quotas"}
	counting = []string{"backend_load", "quotas"} // without the flows, counts would never come down
)

// carry copies a running table into one of another layout, field by field by name.
// One whose keys changed begins empty.
func carry(spec *ebpf.MapSpec, from, to *ebpf.Map) error {
	if from.Type() != to.Type() || from.KeySize() != to.KeySize() {
		return nil
	}
	fields, err := translation(spec, from)
	if err != nil || fields == nil {
		return err
	}
	batch := func(size uint32) reflect.Value {
		return reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(int(size), reflect.TypeFor[byte]())), carriedAtOnce, carriedAtOnce)
	}
	keys, values := batch(from.KeySize()), batch(from.ValueSize())
	value := make([]byte, to.ValueSize())
	var cursor ebpf.MapBatchCursor
	for {
		count, err := from.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read table %s: %w", spec.Name, err)
		}
		for i := range count {
			if !fields.translate(values.Index(i).Bytes(), value) && to.Type() == ebpf.Array {
				continue // zeros are there already
			}
			if err := to.Put(keys.Index(i).Bytes(), value); err != nil {
				return fmt.Errorf("carry an element of table %s over (it holds up to %d): %w", spec.Name, to.MaxEntries(), err)
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

// translation pairs the fields of the running map's value with those of this
// build's; nil if that cannot be said.
func translation(spec *ebpf.MapSpec, from *ebpf.Map) (fieldMap, error) {
	structure, ok := btf.As[*btf.Struct](spec.Value)
	if !ok {
		return fieldMap{{{0, from.ValueSize()}, {0, spec.ValueSize}}}, nil
	}
	types, err := typesOf(from)
	if err != nil || types == nil {
		return nil, err
	}
	if key, ok := btf.As[*btf.Struct](spec.Key); ok && !holdsSame(types, key) {
		return nil, nil
	}
	all, _ := types.AnyTypesByName(structure.Name)
	for _, t := range all {
		old, ok := t.(*btf.Struct)
		if !ok || old.Size != from.ValueSize() {
			continue
		}
		before, now := map[string]span{}, map[string]span{}
		if !leaves(old, "", 0, before) || !leaves(structure, "", 0, now) {
			return nil, nil
		}
		fields := fieldMap{}
		for name, where := range now {
			if was, ok := before[name]; ok {
				fields = append(fields, [2]span{was, where})
			}
		}
		return fields, nil
	}
	return nil, nil
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
