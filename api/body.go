package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// body is what an operation reads.
type body struct {
	kind     reflect.Type
	optional bool
}

// bodies of the operations that have one, by the route that the generated code
// registers. A test compares it with the document.
var bodies = map[string]body{
	"POST /v1/orgs":                                                 {kind: reflect.TypeFor[CreateOrgRequest]()},
	"POST /v1/orgs/{org_slug}/networks":                             {kind: reflect.TypeFor[CreateNetworkRequest]()},
	"POST /v1/orgs/{org_slug}/ping":                                 {kind: reflect.TypeFor[PingRequest]()},
	"POST /v1/hosts/invitations":                                    {kind: reflect.TypeFor[CreateInvitationRequest]()},
	"POST /v1/apps":                                                 {kind: reflect.TypeFor[CreateAppRequest]()},
	"POST /v1/apps/{app_name}/move":                                 {kind: reflect.TypeFor[MoveAppRequest]()},
	"POST /v1/apps/{app_name}/machines":                             {kind: reflect.TypeFor[CreateMachineRequest]()},
	"POST /v1/apps/{app_name}/machines/{machine_id}":                {kind: reflect.TypeFor[UpdateMachineRequest]()},
	"POST /v1/apps/{app_name}/machines/{machine_id}/stop":           {kind: reflect.TypeFor[StopRequest](), optional: true},
	"POST /v1/apps/{app_name}/machines/{machine_id}/migrate":        {kind: reflect.TypeFor[MigrateRequest]()},
	"POST /v1/apps/{app_name}/machines/{machine_id}/signal":         {kind: reflect.TypeFor[SignalRequest]()},
	"POST /v1/apps/{app_name}/machines/{machine_id}/lease":          {kind: reflect.TypeFor[LeaseRequest](), optional: true},
	"POST /v1/apps/{app_name}/machines/{machine_id}/metadata/{key}": {kind: reflect.TypeFor[MetadataValue]()},
	"POST /v1/apps/{app_name}/machines/{machine_id}/exec":           {kind: reflect.TypeFor[ExecRequest]()},
	"POST /v1/apps/{app_name}/ip_assignments":                       {kind: reflect.TypeFor[CreateIPAssignmentRequest]()},
}

// checkBody refuses a body that is too large, of another content type, not JSON,
// or that has members which the operation does not know. The generated code
// would read over the last, and a client's typing error would look like success.
func (s *Server) checkBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		expected, ok := bodies[r.Pattern]
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.config.MaxBody))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			s.fail(w, r, refuse(http.StatusRequestEntityTooLarge, StatusInvalid, "",
				"the request body is too large, expected at most %d bytes", tooLarge.Limit))
			return
		case err != nil:
			s.fail(w, r, refuse(http.StatusBadRequest, StatusInvalid, "", "the request body cannot be read: %v", err))
			return
		}
		if err := expected.check(r.Header.Get("Content-Type"), raw); err != nil {
			s.fail(w, r, err)
			return
		}
		// Again for whoever sends it on.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
		r.Body, _ = r.GetBody()
		next.ServeHTTP(w, r)
	})
}

func (b body) check(contentType string, raw []byte) error {
	if len(raw) == 0 {
		if b.optional {
			return nil
		}
		return refuse(http.StatusBadRequest, StatusInvalid, "", "the request body is missing, expected a JSON object")
	}
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, StatusInvalid, "",
			"the request's content type is %q, expected application/json", contentType)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return refuse(http.StatusBadRequest, StatusInvalid, "", "the request body is not JSON: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, StatusInvalid, "", "the request body goes on after the JSON object, expected only that")
	}
	if value == nil {
		return refuse(http.StatusBadRequest, StatusInvalid, "", "the request body is null, expected a JSON object")
	}
	if err := checkValue("", value, b.kind); err != nil {
		return err
	}
	if name := twice(raw); name != "" {
		return invalid(name, "%s is there twice, expected it once", name)
	}
	return nil
}

// twice is a member that an object of valid JSON has more than once, empty if there
// is none. What was checked is the last one; what is decoded would be both together.
func twice(raw []byte) string {
	type level struct {
		seen map[string]bool // nil in a list
		key  bool            // a name comes next
	}
	stack := []level{{}}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if err != nil {
			return ""
		}
		top := &stack[len(stack)-1]
		name, isName := token.(string)
		switch isName = isName && top.key; {
		case isName && top.seen[name]:
			return name
		case isName:
			top.seen[name], top.key = true, false
			continue
		}
		top.key = top.seen != nil // after this value
		switch token {
		case json.Delim('{'):
			stack = append(stack, level{seen: map[string]bool{}, key: true})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
			top = &stack[len(stack)-1]
			top.key = top.seen != nil
		}
	}
}

// checkValue says what about a decoded value does not fit into kind. path names
// the value as an error does.
func checkValue(path string, value any, kind reflect.Type) *Error {
	if value == nil {
		return nil // as if it were absent
	}
	if _, ok := reflect.New(kind).Interface().(json.Unmarshaler); ok {
		return checkUnmarshal(path, value, kind)
	}
	switch kind.Kind() {
	case reflect.Pointer:
		return checkValue(path, value, kind.Elem())
	case reflect.Struct:
		return checkObject(path, value, kind)
	case reflect.Map:
		object, ok := value.(map[string]any)
		if !ok {
			return mismatch(path, value, "an object")
		}
		for _, key := range slices.Sorted(maps.Keys(object)) {
			if err := checkValue(join(path, key), object[key], kind.Elem()); err != nil {
				return err
			}
		}
	case reflect.Slice:
		list, ok := value.([]any)
		if !ok {
			return mismatch(path, value, "a list")
		}
		for i, element := range list {
			if err := checkValue(fmt.Sprintf("%s[%d]", path, i), element, kind.Elem()); err != nil {
				return err
			}
		}
	case reflect.String:
		if _, ok := value.(string); !ok {
			return mismatch(path, value, "a string")
		}
	case reflect.Bool:
		if _, ok := value.(bool); !ok {
			return mismatch(path, value, "true or false")
		}
	default:
		return checkInteger(path, value)
	}
	return nil
}

func checkUnmarshal(path string, value any, kind reflect.Type) *Error {
	raw, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(raw, reflect.New(kind).Interface())
	}
	if err != nil {
		return invalid(path, "%s %v", path, err)
	}
	return nil
}

func checkObject(path string, value any, kind reflect.Type) *Error {
	object, ok := value.(map[string]any)
	if !ok {
		return mismatch(path, value, "an object")
	}
	members := map[string]reflect.Type{}
	for i := range kind.NumField() {
		name, options, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		members[name] = kind.Field(i).Type
		// The generator marks what the document does not require.
		if options == "" && object[name] == nil {
			return invalid(join(path, name), "%s is missing", join(path, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		member, ok := members[name]
		if !ok {
			return unknownMember(join(path, name), slices.Sorted(maps.Keys(members)))
		}
		if err := checkValue(join(path, name), object[name], member); err != nil {
			return err
		}
	}
	return nil
}

func unknownMember(path string, known []string) *Error {
	if len(known) == 0 {
		return invalid(path, "%s is unknown here, expected an empty object; leave it out", path)
	}
	return invalid(path, "%s is unknown here, expected only: %s", path, strings.Join(known, ", "))
}

func checkInteger(path string, value any) *Error {
	number, ok := value.(json.Number)
	if !ok {
		return mismatch(path, value, "a number")
	}
	n, ok := new(big.Int).SetString(number.String(), 10)
	if !ok || !n.IsInt64() {
		return invalid(path, "%s is %s, expected a whole number of at most 64 bits", path, number)
	}
	return nil
}

func mismatch(path string, value any, expected string) *Error {
	if path == "" {
		path = "the request body"
	}
	found := "an object"
	switch value.(type) {
	case string:
		found = "a string"
	case bool:
		found = "true or false"
	case json.Number:
		found = "a number"
	case []any:
		found = "a list"
	}
	return invalid(path, "%s is %s, expected %s", path, found, expected)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
