package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sixpn/sixpn/state"
)

// wrong is a body that the document does not allow.
type wrong struct {
	name  string
	body  any
	field string // that the refusal must name
}

// sample is a value that a schema allows, with all members that there can be.
func sample(s *openapi3.Schema) any {
	switch {
	case len(s.AllOf) > 0:
		return sample(s.AllOf[0].Value)
	case len(s.OneOf) > 0 && s.OneOf[0].Value.Type.Is("string"):
		return "5s" // a Duration
	case len(s.OneOf) > 0:
		return true // an Autostop
	case s.Type.Is("string"):
		return "a"
	case s.Type.Is("integer"):
		return 1
	case s.Type.Is("boolean"):
		return true
	case s.Type.Is("array"):
		return []any{sample(s.Items.Value)}
	}
	object := map[string]any{}
	for name, member := range s.Properties {
		object[name] = sample(member.Value)
	}
	if more := s.AdditionalProperties.Schema; more != nil {
		object["k"] = sample(more.Value)
	}
	return object
}

// misfits is values of types that a schema does not allow.
func misfits(s *openapi3.Schema) map[string]any {
	switch {
	case len(s.AllOf) > 0:
		return misfits(s.AllOf[0].Value)
	case len(s.OneOf) > 0:
		return map[string]any{"a list": []any{}, "an object": map[string]any{}, "a word": "perhaps"}
	case s.Type.Is("string"):
		return map[string]any{"a number": 1, "true": true, "a list": []any{}, "an object": map[string]any{}}
	case s.Type.Is("integer"):
		return map[string]any{"a word": "1", "true": true, "a fraction": 1.5, "65 bits": json.Number("18446744073709551616"), "a list": []any{}}
	case s.Type.Is("boolean"):
		return map[string]any{"a word": "true", "a number": 1, "a list": []any{}}
	case s.Type.Is("array"):
		return map[string]any{"a word": "a", "an object": map[string]any{}}
	}
	return map[string]any{"a word": "a", "a list": []any{}, "a number": 1}
}

// wrongs changes one thing of a sample at a time, everywhere in it. whole makes the
// body of what is at path.
func wrongs(s *openapi3.Schema, path string, whole func(any) any) []wrong {
	if len(s.AllOf) > 0 {
		return wrongs(s.AllOf[0].Value, path, whole)
	}
	var found []wrong
	if path != "" {
		for name, value := range misfits(s) {
			found = append(found, wrong{path + " is " + name, whole(value), path})
		}
	}
	if s.Type.Is("array") {
		return append(found, wrongs(s.Items.Value, path+"[0]", func(v any) any { return whole([]any{v}) })...)
	}
	if !s.Type.Is("object") {
		return found
	}
	object := sample(s).(map[string]any)
	with := func(name string, value any) map[string]any {
		changed := maps.Clone(object)
		changed[name] = value
		return changed
	}
	at := func(name string) string { return strings.Trim(path+"."+name, ".") }
	if more := s.AdditionalProperties.Schema; more != nil {
		found = append(found, wrongs(more.Value, at("k"), func(v any) any { return whole(with("k", v)) })...)
	} else {
		found = append(found, wrong{at("surprise") + " is unknown", whole(with("surprise", 1)), at("surprise")})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		found = append(found, wrongs(s.Properties[name].Value, at(name), func(v any) any { return whole(with(name, v)) })...)
		if slices.Contains(s.Required, name) {
			missing := maps.Clone(object)
			delete(missing, name)
			found = append(found, wrong{at(name) + " is missing", whole(missing), at(name)})
		}
	}
	return found
}

// Whatever a body has that the document does not allow is refused by name, and
// changes nothing: each member of each body is made wrong in each way.
func TestBodiesMadeFromTheDocument(t *testing.T) {
	s := newStage(t)
	for _, g := range goods {
		operation := s.operations[g.operation]
		if operation.RequestBody == nil {
			continue
		}
		schema := operation.RequestBody.Value.Content["application/json"].Schema.Value
		t.Run(g.operation, func(t *testing.T) {
			before := s.before()
			for _, row := range wrongs(schema, "", func(v any) any { return v }) {
				body, err := json.Marshal(row.body)
				must(t, err)
				a := s.ask(operation.method, s.url(g, ""), "application/json", string(body))
				if a.code != http.StatusUnprocessableEntity || a.failure.Status != "invalid_argument" || a.failure.Field != row.field {
					t.Errorf("%s: answer %d %s, expected 422 and field %s", row.name, a.code, a.body, row.field)
				}
			}
			for _, row := range []struct {
				name, contentType, body string
				code                    int
			}{
				{"a form", "application/x-www-form-urlencoded", g.body, http.StatusUnsupportedMediaType},
				{"no type", "", g.body, http.StatusUnsupportedMediaType},
				{"text", "text/plain", g.body, http.StatusUnsupportedMediaType},
				{"cut", "application/json", g.body[:len(g.body)-1], http.StatusBadRequest},
				{"more", "application/json", g.body + "{}", http.StatusBadRequest},
				{"null", "application/json", "null", http.StatusBadRequest},
				{"oversized", "application/json", `{"x":"` + strings.Repeat("a", maxBody) + `"}`, http.StatusRequestEntityTooLarge},
				{"deep", "application/json", strings.Repeat("[", maxBody/2), http.StatusBadRequest},
			} {
				if a := s.ask(operation.method, s.url(g, ""), row.contentType, row.body); a.code != row.code || a.failure.Status != "invalid_argument" {
					t.Errorf("%s: answer %d %s, expected %d", row.name, a.code, a.body, row.code)
				}
			}
			s.unchanged(t, before)
		})
	}
}

// Parameters likewise, with words where numbers belong and targets that there are not.
func TestParametersMadeFromTheDocument(t *testing.T) {
	s := newStage(t)
	unknown := map[string]string{
		"host_name": "nobody", "org_slug": "nobody", "network": "nowhere", "app_name": "nothing", "machine_id": "00000000000000", "ip": "fdaa:0:1:0:1::ff",
	}
	for _, g := range goods {
		operation := s.operations[g.operation]
		t.Run(g.operation, func(t *testing.T) {
			before := s.before()
			ask := func(name, at string, code int, field string) {
				t.Helper()
				a := s.ask(operation.method, at, contentType(g.body), g.body)
				if a.code != code || a.failure.Field != field {
					t.Errorf("%s: answer %d %s, expected %d and field %s", name, a.code, a.body, code, field)
				}
			}
			for _, p := range operation.parametersIn("path") {
				value, ok := unknown[p.Name]
				if !ok {
					continue // a key of metadata, which there may be or not
				}
				other := g
				other.path = map[string]string{}
				maps.Copy(other.path, g.path)
				other.path[p.Name] = value
				ask("unknown "+p.Name, s.url(other, ""), http.StatusNotFound, p.Name)
			}
			for _, p := range operation.parametersIn("query") {
				for name, value := range badParameters(p.Schema.Value) {
					other := g
					values, err := url.ParseQuery(g.query)
					must(t, err)
					values.Set(p.Name, value)
					other.query = values.Encode()
					code := http.StatusUnprocessableEntity
					if name == "a word" {
						code = http.StatusBadRequest
					}
					ask(p.Name+" is "+name, s.url(other, ""), code, p.Name)
				}
			}
			s.unchanged(t, before)
		})
	}
}

// badParameters is values that the schema of a parameter does not allow.
func badParameters(s *openapi3.Schema) map[string]string {
	bad := map[string]string{}
	switch {
	case len(s.Enum) > 0:
		bad["none of its values"] = "perhaps"
	case s.Type.Is("boolean"), s.Type.Is("integer"):
		bad["a word"] = "perhaps"
	}
	if s.Min != nil {
		bad["too small"] = fmt.Sprint(int(*s.Min) - 1)
	}
	if s.Max != nil {
		bad["too large"] = fmt.Sprint(int(*s.Max) + 1)
	}
	return bad
}

// Who does not hold the lease changes nothing, by any operation that the document
// gives the nonce to.
func TestLeaseKeepsOthersOut(t *testing.T) {
	s := newStage(t)
	lease, revision, err := s.store.AcquireLease(t.Context(), s.machine.ID, state.LeaseRequest{Owner: "somebody"})
	must(t, err)
	s.seen(revision)
	before := s.before()
	for _, g := range goods {
		operation := s.operations[g.operation]
		if len(operation.parametersIn("header")) == 0 {
			continue
		}
		t.Run(g.operation, func(t *testing.T) {
			for name, nonce := range map[string]string{"no nonce": "", "another nonce": "guessed" + lease.Nonce} {
				a := s.holding(nonce, operation.method, s.url(g, ""), contentType(g.body), g.body)
				if a.code != http.StatusConflict || a.failure.Status != "conflict" || a.failure.Field != "fly-machine-lease-nonce" {
					t.Errorf("%s: answer %d %s, expected a conflict", name, a.code, a.body)
				}
				if bytes.Contains(a.body, []byte(lease.Nonce)) {
					t.Errorf("%s: the refusal tells the nonce", name)
				}
			}
			s.unchanged(t, before)
		})
	}
}

// moment is what must not change.
type moment struct {
	snapshot *state.Snapshot
	revision int64
}

func (w *world) before() moment { return moment{w.store.Snapshot(), w.revision()} }

func (w *world) unchanged(t *testing.T, before moment) {
	t.Helper()
	if now := w.revision(); now != before.revision {
		t.Errorf("revision %d, expected %d as before", now, before.revision)
	}
	if diff := cmp.Diff(before.snapshot, w.store.Snapshot(), cmpopts.IgnoreUnexported(state.Snapshot{})); diff != "" {
		t.Errorf("the state changed (-before +after):\n%s", diff)
	}
}
