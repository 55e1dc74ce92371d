package api_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/sixpn/sixpn/api"
)

// FuzzBody gives any bytes to the check of any operation's body. What it accepts
// has no member that would be read over, and a Machine's configuration, once
// accepted, is shown as one that is accepted again and means the same.
func FuzzBody(f *testing.F) {
	kinds := api.Bodies()
	routes := slices.Sorted(maps.Keys(kinds))
	f.Fuzz(func(t *testing.T, operation uint8, raw []byte) {
		route := routes[int(operation)%len(routes)]
		if api.CheckBody(route, raw) != nil || len(raw) == 0 {
			return
		}
		value := reflect.New(kinds[route]).Interface()
		strict := json.NewDecoder(bytes.NewReader(raw))
		strict.DisallowUnknownFields()
		if err := strict.Decode(value); err != nil {
			t.Fatalf("%s: %s is accepted and cannot be read: %v", route, raw, err)
		}
		var config api.MachineConfig
		switch v := value.(type) {
		case *api.CreateMachineRequest:
			config = v.Config
		case *api.UpdateMachineRequest:
			config = v.Config
		default:
			return
		}
		shown, err := api.Keep(config)
		if err != nil {
			return // a number that no port or limit has
		}
		again, err := json.Marshal(map[string]any{"config": shown})
		if err != nil {
			t.Fatal(err)
		}
		if err := api.CheckBody("POST /v1/apps/{app_name}/machines", again); err != nil {
			t.Fatalf("%s is kept as %s, which is refused: %v", raw, again, err)
		}
		twice, err := api.Keep(shown)
		if err != nil || !reflect.DeepEqual(shown, twice) {
			t.Fatalf("%+v is kept as %+v, error %v", shown, twice, err)
		}
	})
}
