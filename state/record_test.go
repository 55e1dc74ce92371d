package state_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sixpn/sixpn/state"
)

// machines draws records with every field set at will. Times are as the store has
// them: UTC, without a monotonic part.
func machines() *rapid.Generator[state.Machine] {
	return rapid.Custom(func(t *rapid.T) state.Machine {
		m := rapid.Make[state.Machine]().Draw(t, "machine")
		m.CreatedAt = time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "created"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC()
		m.UpdatedAt = m.CreatedAt
		return m
	})
}

func encode(t rapid.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func roundTrip[T any](t rapid.TB, v T) {
	t.Helper()
	// A list that is empty and one that is absent are written alike inside a struct, and
	// tell apart whether the struct is; what was read once has only the latter.
	drawn, err := state.Decode[T](encode(t, v), 6)
	if err != nil {
		t.Fatal(err)
	}
	first := encode(t, drawn.Value)
	r, err := state.Decode[T](first, 7)
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := state.Decode[T](second, 8); err != nil || !reflect.DeepEqual(r.Value, again.Value) {
		t.Fatalf("decoded twice, the value is\n%+v\nthen\n%+v (%v)", r.Value, again.Value, err)
	}
	if !sameJSON(t, first, second) {
		t.Fatalf("the record changed\nfrom %s\nto   %s", first, second)
	}
}

func sameJSON(t rapid.TB, a, b []byte) bool {
	t.Helper()
	return reflect.DeepEqual(tree(t, a), tree(t, b))
}

// tree keeps numbers as they are written.
func tree(t rapid.TB, raw []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { roundTrip(t, machines().Draw(t, "m")) })
	rapid.Check(t, func(t *rapid.T) {
		roundTrip(t, state.VIP{Network: 1, Number: rapid.Uint32().Draw(t, "number"), App: rapid.String().Draw(t, "app")})
	})
	rapid.Check(t, func(t *rapid.T) { roundTrip(t, state.Org{Slug: rapid.String().Draw(t, "slug")}) })
}

// TestUnknownFieldsSurvive adds fields to every object of a record, changes what is
// known, and finds them all where they were.
func TestUnknownFieldsSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := machines().Draw(t, "m")
		stored := tree(t, encode(t, m))
		next := 0
		plant(stored, &next)
		r, err := state.Decode[state.Machine](encode(t, stored), 1)
		if err != nil {
			t.Fatal(err)
		}
		changed := machines().Draw(t, "changed")
		r.Value.State, r.Value.ExitCode, r.Value.Message = changed.State, changed.ExitCode, changed.Message
		r.Value.Config.MTU = changed.Config.MTU
		out, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		want := stored.(map[string]any)
		set := func(in map[string]any, name string, value any, empty bool) {
			if delete(in, name); !empty {
				in[name] = tree(t, encode(t, value))
			}
		}
		set(want, "state", changed.State, false)
		set(want, "exit_code", changed.ExitCode, changed.ExitCode == nil)
		set(want, "message", changed.Message, changed.Message == "")
		set(want["config"].(map[string]any), "mtu", changed.Config.MTU, changed.Config.MTU == 0)
		if !sameJSON(t, out, encode(t, want)) {
			t.Fatalf("the record is\n%s\nwant\n%s", out, encode(t, want))
		}
	})
}

// plant adds a field of its own to every object that is a struct.
func plant(v any, next *int) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			plant(e, next)
		}
	case map[string]any:
		for name, e := range v {
			switch name {
			case "env", "metadata":
			case "checks":
				if named, ok := e.(map[string]any); ok { // a map, not a struct
					for _, check := range named {
						plant(check, next)
					}
					continue
				}
				plant(e, next)
			default:
				plant(e, next)
			}
		}
		*next++
		v["from_the_future"] = map[string]any{"n": json.Number("9007199254740993")}
	}
}

// TestAPartWithNothingKnown is left out of what this build encodes, and stays all the same,
// unless something known was in it that was taken out.
func TestAPartWithNothingKnown(t *testing.T) {
	for name, row := range map[string]struct{ stored, want string }{
		"nothing known":   {`{"later":1}`, `{"later":1}`},
		"something known": {`{"signal":"SIGINT","later":1}`, ``},
		"nothing at all":  {``, ``},
	} {
		t.Run(name, func(t *testing.T) {
			stop := func(content string) (record map[string]any) {
				record = tree(t, encode(t, state.Machine{ID: "a"})).(map[string]any)
				if content != "" {
					record["stop"] = tree(t, []byte(content))
				}
				return record
			}
			r, err := state.Decode[state.Machine](encode(t, stop(row.stored)), 1)
			if err != nil {
				t.Fatal(err)
			}
			r.Value.Stop = state.StopConfig{}
			got, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if want := encode(t, stop(row.want)); !sameJSON(t, got, want) {
				t.Errorf("the record is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestUnknownFieldsFollowTheirElement edits lists.
func TestUnknownFieldsFollowTheirElement(t *testing.T) {
	const stored = `{"id":"1","config":{"services":[` +
		`{"protocol":"tcp","internal_port":1,"ports":[],"concurrency":{},"later":"a"},` +
		`{"protocol":"tcp","internal_port":2,"ports":[],"concurrency":{},"later":"b"},` +
		`{"protocol":"tcp","internal_port":2,"ports":[],"concurrency":{},"later":"c"}]}}`
	for name, row := range map[string]struct {
		edit func(*[]state.Service)
		want []any // of "later"
	}{
		"none":          {func(*[]state.Service) {}, []any{"a", "b", "c"}},
		"first removed": {func(s *[]state.Service) { *s = (*s)[1:] }, []any{"b", "c"}},
		"swapped":       {func(s *[]state.Service) { (*s)[0], (*s)[1] = (*s)[1], (*s)[0] }, []any{"b", "a", "c"}},
		"one edited":    {func(s *[]state.Service) { (*s)[0].InternalPort = 9 }, []any{"a", "b", "c"}},
		"one added":     {func(s *[]state.Service) { *s = append([]state.Service{{Protocol: "udp"}}, *s...) }, []any{nil, "a", "b", "c"}},
		"all removed":   {func(s *[]state.Service) { *s = nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := state.Decode[state.Machine]([]byte(stored), 1)
			must(t, err)
			row.edit(&r.Value.Config.Services)
			out, err := r.Encode()
			must(t, err)
			var got []any
			services, _ := tree(t, out).(map[string]any)["config"].(map[string]any)["services"].([]any)
			for _, s := range services {
				got = append(got, s.(map[string]any)["later"])
			}
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("the fields are %v, want %v", got, row.want)
			}
		})
	}
}

// TestUnknownFieldsOfLaterRecords has one in every struct that a Machine's record can
// hold, by name, so that a kind of field that the merge does not enter shows.
func TestUnknownFieldsOfLaterRecords(t *testing.T) {
	const stored = `{"id":"1","x":0,"lease":{"nonce":"n","x":1},"events":[{"id":"b","x":2},{"id":"a","x":3}],
		"checks":[{"name":"up","status":"passing","x":4}],
		"config":{"x":5,"guest":{"cpus":1,"x":6},"attach":{"device":"tap0","x":7},"dns":{"hostname":"h","x":8,"options":[{"name":"edns0","x":9}]},
		"checks":{"Up.1":{"type":"http","x":10,"headers":[{"name":"Host","values":["a"],"x":11}]}}}}`
	r, err := state.Decode[state.Machine]([]byte(stored), 1)
	must(t, err)
	r.Value.Events = append([]state.Event{{ID: "c"}}, r.Value.Events...)
	r.Value.Checks[0].Status = state.CheckCritical
	r.Value.Lease.Owner = "me"
	r.Value.Config.Checks["Up.1"] = state.Check{Type: "http", Path: "/", Headers: r.Value.Config.Checks["Up.1"].Headers}
	r.Value.Config.Checks["new"] = state.Check{Type: "tcp"}
	out, err := r.Encode()
	must(t, err)
	var found []string
	collect(tree(t, out), &found)
	slices.Sort(found)
	want := strings.Fields("0 1 10 11 2 3 4 5 6 7 8 9")
	if !slices.Equal(found, want) {
		t.Errorf("of the unknown fields %v are left, want %v, in\n%s", found, want, out)
	}
}

// collect finds every "x".
func collect(v any, found *[]string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			collect(e, found)
		}
	case map[string]any:
		for name, e := range v {
			if name == "x" {
				*found = append(*found, fmt.Sprint(e))
			}
			collect(e, found)
		}
	}
}

func TestNoRecord(t *testing.T) {
	for _, raw := range []string{"", " ", "null", "[]", "12", `"x"`, "{", `{"id":1}`, `{}x`, `{"created_at":"yesterday"}`} {
		if _, err := state.Decode[state.Machine]([]byte(raw), 1); err == nil {
			t.Errorf("%q was taken for a record", raw)
		}
	}
}

// FuzzDecode gives anything to the decoder: what it takes for a record, it writes
// back to the same, once and again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"148e21dad76789","network":1,"config":{"services":[{"x":1}]},"unknown":[1,2]}`))
	f.Add([]byte(`{"MESSAGE":"other case","config":null,"exit_code":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := state.Decode[state.Machine](raw, 1)
		if err != nil {
			return
		}
		once, err := r.Encode()
		must(t, err)
		again, err := state.Decode[state.Machine](once, 2)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, once)
		}
		if a, b := encode(t, r.Value), encode(t, again.Value); !bytes.Equal(a, b) {
			t.Fatalf("the value changed\nfrom %s\nto   %s", a, b)
		}
		twice, err := again.Encode()
		must(t, err)
		if !sameJSON(t, once, twice) {
			t.Fatalf("written twice it is\n%s\nthen\n%s", once, twice)
		}
	})
}
