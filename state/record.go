package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Record is a stored value together with the bytes it was read from, so that the
// fields this build does not know, at any depth, are written back: hosts one
// release apart work on the same records.
type Record[T any] struct {
	Value T
	// ModRevision is the store's revision of the last write of this record, 0 for
	// a new one.
	ModRevision int64
	raw         []byte
}

// Decode reads a record. Unknown fields are no error.
func Decode[T any](raw []byte, modRevision int64) (Record[T], error) {
	r := Record[T]{ModRevision: modRevision, raw: raw}
	// A record that is no object would decode as an empty value: null for instance.
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return Record[T]{}, fmt.Errorf("a record must be a JSON object, this is %.40q", raw)
	}
	if err := json.Unmarshal(raw, &r.Value); err != nil {
		return Record[T]{}, fmt.Errorf("decode %T: %w", r.Value, err)
	}
	return r, nil
}

// Encode writes Value and every unknown field of what was read.
func (r Record[T]) Encode() ([]byte, error) {
	known, err := json.Marshal(r.Value)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", r.Value, err)
	}
	if r.raw == nil {
		return known, nil
	}
	return merge(reflect.TypeFor[T](), r.raw, known)
}

var timeType = reflect.TypeFor[time.Time]()

// merge adds to known, the encoding of a value of type t, the fields of old that t
// does not have.
func merge(t reflect.Type, old, known json.RawMessage) (json.RawMessage, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Struct && t != timeType:
		return mergeObject(old, known, fieldsOf(t))
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return mergeList(t.Elem(), old, known)
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		return mergeMap(t.Elem(), old, known)
	default:
		return known, nil // it has no place for a field of its own
	}
}

func mergeObject(old, known json.RawMessage, fields map[string]field) (json.RawMessage, error) {
	var before, after map[string]json.RawMessage
	if json.Unmarshal(old, &before) != nil || before == nil {
		return known, nil // another kind of value before: nothing to keep
	}
	if err := json.Unmarshal(known, &after); err != nil {
		return nil, err
	}
	// In order, so that two names that differ in case only always give the same result.
	for _, name := range slices.Sorted(maps.Keys(before)) {
		f, known := fields[strings.ToLower(name)]
		switch {
		case !known:
			after[name] = before[name]
		case after[f.name] != nil:
			merged, err := merge(f.kind, before[name], after[f.name])
			if err != nil {
				return nil, err
			}
			after[f.name] = merged
		case onlyUnknown(f.kind, before[name]):
			after[f.name] = before[name] // left out because nothing that is known was in it
		}
	}
	return json.Marshal(after)
}

// onlyUnknown is whether a struct was stored with nothing in it that this build knows.
func onlyUnknown(t reflect.Type, old json.RawMessage) bool {
	if t.Kind() != reflect.Struct || t == timeType {
		return false
	}
	value := reflect.New(t)
	return json.Unmarshal(old, value.Interface()) == nil && value.Elem().IsZero()
}

// mergeMap gives each new element the unknown fields of the old one of its key.
func mergeMap(element reflect.Type, old, known json.RawMessage) (json.RawMessage, error) {
	var before, after map[string]json.RawMessage
	if json.Unmarshal(old, &before) != nil || json.Unmarshal(known, &after) != nil {
		return known, nil
	}
	for key, value := range after {
		if before[key] == nil {
			continue
		}
		merged, err := merge(element, before[key], value)
		if err != nil {
			return nil, err
		}
		after[key] = merged
	}
	return json.Marshal(after)
}

// mergeList gives each new element the unknown fields of the old element that is
// the same in what this build knows or, when there is none, stands at its place.
func mergeList(element reflect.Type, old, known json.RawMessage) (json.RawMessage, error) {
	var before, after []json.RawMessage
	if json.Unmarshal(old, &before) != nil || json.Unmarshal(known, &after) != nil {
		return known, nil
	}
	canonical := make([][]byte, len(before))
	for i, raw := range before {
		value := reflect.New(element)
		if json.Unmarshal(raw, value.Interface()) == nil {
			canonical[i], _ = json.Marshal(value.Interface()) // nil, equal to nothing, is right on an error
		}
	}
	used := make([]bool, len(before))
	from := make([]int, len(after))
	for i := range after {
		from[i] = -1
		for j := range before {
			if !used[j] && bytes.Equal(canonical[j], after[i]) {
				from[i], used[j] = j, true
				break
			}
		}
	}
	for i := range after {
		j := from[i]
		if j < 0 && i < len(before) && !used[i] && len(before) == len(after) {
			j, used[i] = i, true
		}
		if j < 0 {
			continue
		}
		merged, err := merge(element, before[j], after[i])
		if err != nil {
			return nil, err
		}
		after[i] = merged
	}
	return json.Marshal(after)
}

// field is one field of a struct: the name it is written by, and its type.
type field struct {
	name string
	kind reflect.Type
}

// fieldsOf is the fields of a struct by lower-case name, because decoding ignores
// case: a field in another case is a known one.
func fieldsOf(t reflect.Type) map[string]field {
	fields := make(map[string]field, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		fields[strings.ToLower(name)] = field{name, f.Type}
	}
	return fields
}
