package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/sixpn/sixpn/internal/nearest"
)

// ConfigError is a setting that cannot work, and who said it.
type ConfigError struct {
	From    string // "flag --mtu", "environment variable SIXPN_AGENT_MTU", "/etc/sixpn/default.yaml: mtu"; "" if unknown
	Key     string
	Value   string // "" if it is not one value that is wrong
	Message string // what was wrong, what was expected
}

func (e *ConfigError) Error() string {
	from := e.From
	if from == "" {
		from = e.Key
	}
	if e.Value != "" {
		return fmt.Sprintf("%s: %q: %s", from, e.Value, e.Message)
	}
	return from + ": " + e.Message
}

// Setting is one setting as it is in force, and who said so.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  string `json:"from"` // "default", with what that depends on, or as ConfigError.From
}

// Loaded is a whole configuration.
type Loaded struct {
	Config   Config
	Settings []Setting // all, in the order of the reference
	File     string    // "" if there is none
}

const configDir = "/etc/sixpn"

func defaultFile(name string) string { return filepath.Join(configDir, name+".yaml") }

// ownFile is the file of the agent of a name.
func (s *Sources) ownFile(name string) string { return filepath.Join(s.directory, name+".yaml") }

// layer is what one source says, by key.
type layer struct {
	values *koanf.Koanf
	from   func(f field) string
}

// Load reads all sources, and has the regions that they name in force. Its error
// wraps a *ConfigError unless the host is at fault.
func (s *Sources) Load() (Loaded, error) {
	loaded, err := s.read()
	if err != nil {
		return Loaded{}, err
	}
	return loaded, loaded.Config.setRegions()
}

// read is Load without an effect on anything.
func (s *Sources) read() (Loaded, error) {
	flags, err := s.flagLayer()
	if err != nil {
		return Loaded{}, err
	}
	environment, err := s.envLayer()
	if err != nil {
		return Loaded{}, err
	}
	path, wanted, err := s.filePath(flags, environment)
	if err != nil {
		return Loaded{}, err
	}
	loaded := Loaded{}
	layers := []layer{flags, environment}
	if _, err := os.Stat(path); wanted || !errors.Is(err, os.ErrNotExist) {
		content, err := fileLayer(path)
		if err != nil {
			return Loaded{}, err
		}
		loaded.File = path
		layers = append(layers, content)
	}
	from := map[string]string{}
	for _, f := range fields {
		from[f.key] = "default"
		for _, l := range layers {
			raw := l.values.Get(f.key)
			if raw == nil {
				continue
			}
			from[f.key] = l.from(f)
			if err := setRaw(f.of(&loaded.Config), raw); err != nil {
				return Loaded{}, f.wrong(l.from(f), fmt.Sprint(raw), err)
			}
			break
		}
	}
	if !wanted && loaded.File != "" && s.ownFile(loaded.Config.orName()) != loaded.File {
		return Loaded{}, &ConfigError{From: loaded.File + ": name", Key: "name", Value: loaded.Config.Name,
			Message: fmt.Sprintf("expected that of the file, or none: it is read for the agent of that name; use --config %s", loaded.File)}
	}
	if err := loaded.Config.complete(); err != nil {
		var wrong *ConfigError
		if errors.As(err, &wrong) && from[wrong.Key] != "default" {
			wrong.From = from[wrong.Key]
		}
		return Loaded{}, err
	}
	for _, f := range fields {
		setting := Setting{Key: f.key, Value: f.of(&loaded.Config).String(), From: from[f.key]}
		if f.of(&loaded.Config).isZero() && f.derived != "" {
			setting.Value, setting.From = "", "default: "+f.derived
		}
		if f.secret && setting.Value != "" {
			setting.Value = "(not shown)"
		}
		loaded.Settings = append(loaded.Settings, setting)
	}
	return loaded, nil
}

// setRaw gives a setting what a source has for it: text, or what YAML makes of it.
func setRaw(v value, raw any) error {
	if regions, ok := v.(*regionList); ok {
		if all, ok := raw.([]any); ok {
			return regions.setAll(all)
		}
	}
	switch raw := raw.(type) {
	case []any:
		several, ok := v.(*list)
		if !ok {
			return errors.New("expected one value, not a list")
		}
		for _, one := range raw {
			if err := several.Set(fmt.Sprint(one)); err != nil {
				return fmt.Errorf("%v: %w", one, err)
			}
		}
		return nil
	case map[string]any, map[any]any:
		return errors.New("expected one value, not a mapping")
	}
	return v.Set(fmt.Sprint(raw))
}

// setAll takes regions as the file has them.
func (v *regionList) setAll(raw []any) error {
	for _, one := range raw {
		m, ok := one.(map[string]any)
		if !ok {
			return errors.New("expected a list of mappings with code, name, latitude and longitude")
		}
		var r RegionConfig
		for key, to := range m {
			var err error
			switch key {
			case "code":
				r.Code = fmt.Sprint(to)
			case "name":
				r.Name = fmt.Sprint(to)
			case "latitude":
				r.Latitude, err = degrees(to)
			case "longitude":
				r.Longitude, err = degrees(to)
			default:
				err = unknown(key, []string{"code", "name", "latitude", "longitude"})
			}
			if err != nil {
				return err
			}
		}
		*v.to = append(*v.to, r)
	}
	return nil
}

func degrees(raw any) (float64, error) {
	switch d := raw.(type) {
	case float64:
		return d, nil
	case int:
		return float64(d), nil
	}
	return 0, fmt.Errorf("%v are no degrees: expected a number such as 52.5", raw)
}

// flagLayer is the flags that were given.
func (s *Sources) flagLayer() (layer, error) {
	given := map[string]any{}
	s.flags.Visit(func(flag *pflag.Flag) {
		for _, f := range fields {
			if f.flag() == flag.Name {
				given[f.key] = flag.Value.String()
			}
		}
	})
	l := layer{koanf.New("."), func(f field) string { return "flag --" + f.flag() }}
	return l, l.values.Load(confmap.Provider(given, "."), nil)
}

// envLayer is the environment. An empty variable counts as none.
func (s *Sources) envLayer() (layer, error) {
	l := layer{koanf.New("."), func(f field) string { return "environment variable " + f.env() }}
	err := l.values.Load(env.Provider(".", env.Opt{
		Prefix: envPrefix, EnvironFunc: s.environ,
		TransformFunc: func(name, value string) (string, any) {
			if value == "" {
				return "", nil
			}
			return strings.ToLower(strings.TrimPrefix(name, envPrefix)), value
		},
	}), nil)
	if err != nil {
		return l, fmt.Errorf("read the environment: %w", err)
	}
	for _, key := range l.values.Keys() {
		if !isField(key) && key != "config" {
			return l, &ConfigError{From: "environment variable " + envPrefix + strings.ToUpper(key), Key: key, Message: unknown(key, keys()).Error()}
		}
	}
	return l, nil
}

// filePath says which file is read; wanted if somebody asked for it.
func (s *Sources) filePath(flags, environment layer) (path string, wanted bool, err error) {
	if s.file != "" {
		return s.file, true, nil
	}
	if path := environment.values.String("config"); path != "" {
		return path, true, nil
	}
	name := fields[0].def
	for _, l := range []layer{environment, flags} {
		if given := l.values.String("name"); given != "" {
			name = given
			if err := checkName(name); err != nil {
				return "", false, &ConfigError{From: l.from(fields[0]), Key: "name", Value: name, Message: err.Error()}
			}
		}
	}
	return s.ownFile(name), false, nil
}

// fileLayer reads one YAML file.
func fileLayer(path string) (layer, error) {
	l := layer{koanf.New("."), func(f field) string { return path + ": " + f.key }}
	if err := l.values.Load(file.Provider(path), yaml.Parser()); err != nil {
		if _, ok := errors.AsType[*os.PathError](err); ok {
			return l, &ConfigError{From: "configuration file " + path, Key: "config", Message: fmt.Sprintf("it cannot be read: %v", err)}
		}
		return l, &ConfigError{From: path, Key: "config", Message: fmt.Sprintf("expected YAML with a key and a value a line: %v", err)}
	}
	for key := range l.values.Raw() {
		if !isField(key) {
			return l, &ConfigError{From: path + ": " + key, Key: key, Message: unknown(key, keys()).Error()}
		}
	}
	return l, nil
}

func keys() []string {
	var all []string
	for _, f := range fields {
		all = append(all, f.key)
	}
	return all
}

// unknown says that there is no such key, and which one might be meant.
func unknown(key string, known []string) error {
	if near := nearest.Of(key, known); near != "" {
		return fmt.Errorf("unknown setting %q, did you mean %q?", key, near)
	}
	return fmt.Errorf("unknown setting %q: expected one of %s", key, strings.Join(known, ", "))
}
