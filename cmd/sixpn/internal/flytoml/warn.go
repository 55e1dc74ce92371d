package flytoml

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/sixpn/sixpn/internal/nearest"
)

// meaningless are keys that a fly.toml may have and that mean nothing here, with
// why. A part that is * stands for any name; what is below a key counts as the key.
var meaningless = map[string]string{
	"build":                              "a Machine runs programs that this host has",
	"console_command":                    "run a command inside a Machine with: sixpn machine exec",
	"experimental":                       "it belongs to another platform",
	"files":                              "a Machine sees the files of its host",
	"host_dedication_id":                 "this host is the only one",
	"machine_checks":                     "only TCP and HTTP checks are made",
	"metrics":                            "the agent's own metrics cover every Machine; scrape a Machine by its .internal name",
	"mounts":                             "a Machine sees the files of its host",
	"persist_rootfs":                     "a Machine sees the files of its host",
	"statics":                            "serve files from a Machine",
	"swap_size_mb":                       "a Machine gets what its host has",
	"vm":                                 "a Machine gets what its host has",
	"deploy.max_unavailable":             "a rolling deploy takes one Machine at a time",
	"deploy.release_command":             "run it before the deploy, with: sixpn machine run",
	"deploy.release_command_timeout":     "there is no release command",
	"deploy.release_command_vm":          "there is no release command",
	"deploy.seed_command":                "run it before the deploy, with: sixpn machine run",
	"services.force_instance_key":        "a VIP chooses among all Machines",
	"services.machine_checks":            "only TCP and HTTP checks are made",
	"services.script_checks":             "only TCP and HTTP checks are made",
	"services.ports.force_https":         flycastIsPlain,
	"services.ports.handlers":            flycastIsPlain,
	"services.ports.http_options":        flycastIsPlain,
	"services.ports.tls_options":         flycastIsPlain,
	"services.ports.proxy_proto_options": flycastIsPlain,
	"services.tcp_checks.restart_limit":  noCheckRestarts,
	"services.http_checks.restart_limit": noCheckRestarts,
	"http_service.force_https":           flycastIsPlain,
	"http_service.http_options":          flycastIsPlain,
	"http_service.tls_options":           flycastIsPlain,
	"http_service.machine_checks":        "only TCP and HTTP checks are made",
	"http_service.checks.restart_limit":  noCheckRestarts,
	"checks.*.restart_limit":             noCheckRestarts,
}

const (
	flycastIsPlain  = "a Flycast port carries the bytes of its clients as they are, plain HTTP for instance"
	noCheckRestarts = "a failing check keeps new connections away from a Machine, it does not restart it"
)

// warnings are about the keys that nothing was made of, each once.
func warnings(undecoded []toml.Key) []string {
	var out []string
	for _, key := range undecoded {
		warning := explain(key)
		if warning != "" && !slices.Contains(out, warning) {
			out = append(out, warning)
		}
	}
	return out
}

// explain says what is with a key, nothing if it is known.
func explain(key toml.Key) string {
	at := reflect.TypeFor[document]()
	pattern := make([]string, 0, len(key))
	for i, part := range key {
		fields, table := keysOf(at)
		if !table {
			return "" // below what reads itself
		}
		field, known := fields[part]
		if any, ok := fields["*"]; ok {
			field, known, part = any, true, "*"
		}
		pattern = append(pattern, part)
		if known {
			at = field
			continue
		}
		name := toml.Key(key[:i+1]).String()
		parent := strings.Join(pattern[:i], ".")
		if reason, ok := meaningless[strings.Join(pattern, ".")]; ok {
			return fmt.Sprintf("%s has no meaning here: %s", name, reason)
		}
		if near := likely(part, fields, parent); near != "" {
			return fmt.Sprintf("%s is unknown and not used, did you mean %s?", name, near)
		}
		return name + " is unknown and not used"
	}
	return ""
}

// keysOf is the keys that a table of this type has, "*" where any name goes. table
// is false of what is no table, or reads itself.
func keysOf(t reflect.Type) (keys map[string]reflect.Type, table bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[toml.Unmarshaler]()) {
		return nil, false
	}
	switch t.Kind() {
	case reflect.Map:
		return map[string]reflect.Type{"*": t.Elem()}, true
	case reflect.Struct:
		keys = map[string]reflect.Type{}
		for _, field := range reflect.VisibleFields(t) {
			if !field.Anonymous {
				keys[field.Tag.Get("toml")] = field.Type
			}
		}
		return keys, true
	}
	return nil, false
}

// likely is the key of the same table that was most likely meant, if any is near.
func likely(name string, fields map[string]reflect.Type, parent string) string {
	var candidates []string
	for field := range fields {
		candidates = append(candidates, field)
	}
	for path := range meaningless {
		dir, base := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			dir, base = path[:i], path[i+1:]
		}
		if dir == parent {
			candidates = append(candidates, base)
		}
	}
	slices.Sort(candidates)
	return nearest.Of(name, candidates)
}
