package flytoml

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/sixpn/sixpn/api"
)

// document is a fly.toml with the keys that have a meaning here, and no others:
// what is left undecoded is what Read warns of.
type document struct {
	App           string            `toml:"app"`
	PrimaryRegion string            `toml:"primary_region"`
	KillSignal    string            `toml:"kill_signal"`
	KillTimeout   duration          `toml:"kill_timeout"` // a number is seconds
	Processes     processes         `toml:"processes"`
	Env           map[string]scalar `toml:"env"`
	Metadata      map[string]scalar `toml:"metadata"`
	Services      []service         `toml:"services"`
	HTTPService   *httpService      `toml:"http_service"`
	Checks        map[string]check  `toml:"checks"`
	Restart       []restart         `toml:"restart"`
	Deploy        deploy            `toml:"deploy"`
}

type deploy struct {
	Strategy    string   `toml:"strategy"`
	WaitTimeout duration `toml:"wait_timeout"` // a number is seconds
}

type restart struct {
	Policy    string   `toml:"policy"`
	Retries   int      `toml:"retries"`
	Processes []string `toml:"processes"`
}

// processes is a table of commands. Files of before there were groups have an empty
// list there.
type processes map[string]string

// UnmarshalTOML is toml.Unmarshaler.
func (p *processes) UnmarshalTOML(value any) error {
	table, ok := value.(map[string]any)
	if list, isList := value.([]any); isList && len(list) == 0 {
		return nil
	}
	if !ok {
		return fmt.Errorf("%v is no table of commands, expected e.g. {app = \"./server\"}", value)
	}
	*p = processes{}
	for group, command := range table {
		line, ok := command.(string)
		if !ok {
			return fmt.Errorf("the command of group %q is %v, expected a text", group, command)
		}
		(*p)[group] = line
	}
	return nil
}

// traffic is what both kinds of service have.
type traffic struct {
	InternalPort       int          `toml:"internal_port"`
	AutoStopMachines   autostop     `toml:"auto_stop_machines"`
	AutoStartMachines  *bool        `toml:"auto_start_machines"`
	MinMachinesRunning int          `toml:"min_machines_running"`
	Concurrency        *concurrency `toml:"concurrency"`
	Processes          []string     `toml:"processes"`
}

type service struct {
	traffic
	Protocol   string  `toml:"protocol"`
	Ports      []port  `toml:"ports"`
	TCPChecks  []check `toml:"tcp_checks"`
	HTTPChecks []check `toml:"http_checks"`
}

type httpService struct {
	traffic
	Checks []check `toml:"checks"`
}

type port struct {
	Port      number `toml:"port"`
	StartPort number `toml:"start_port"`
	EndPort   number `toml:"end_port"`
}

type concurrency struct {
	Type      string `toml:"type"`
	SoftLimit int    `toml:"soft_limit"`
	HardLimit int    `toml:"hard_limit"`
}

// check is any of the kinds of check. Type, Port and Processes are of [checks]
// alone; a number as a time is milliseconds.
type check struct {
	Type          string   `toml:"type"`
	Port          number   `toml:"port"`
	Interval      duration `toml:"interval"`
	Timeout       duration `toml:"timeout"`
	GracePeriod   duration `toml:"grace_period"`
	Method        string   `toml:"method"`
	Path          string   `toml:"path"`
	Protocol      string   `toml:"protocol"`
	TLSSkipVerify bool     `toml:"tls_skip_verify"`
	TLSServerName string   `toml:"tls_server_name"`
	Headers       headers  `toml:"headers"`
	Processes     []string `toml:"processes"`
}

func (c check) api(kind string) api.HealthCheck {
	return api.HealthCheck{
		Type: cmp.Or(kind, c.Type), Port: int(c.Port),
		Interval:    api.DurationValue(c.Interval.in(time.Millisecond)),
		Timeout:     api.DurationValue(c.Timeout.in(time.Millisecond)),
		GracePeriod: api.DurationValue(c.GracePeriod.in(time.Millisecond)),
		Method:      c.Method, Path: c.Path, Protocol: c.Protocol,
		TLSSkipVerify: c.TLSSkipVerify, TLSServerName: c.TLSServerName, Headers: c.Headers,
	}
}

// duration is a text such as "15s", or a number in the unit that its key has.
type duration struct {
	text   time.Duration
	number float64
}

func (d duration) in(unit time.Duration) time.Duration {
	return d.text + time.Duration(d.number*float64(unit))
}

// longest is more than any time in a fly.toml means, and far from overflow.
const longest = 1000 * time.Hour

// UnmarshalTOML is toml.Unmarshaler.
func (d *duration) UnmarshalTOML(value any) error {
	switch value := value.(type) {
	case int64:
		d.number = float64(value)
	case float64:
		d.number = value
	case string:
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			d.number = n
			break
		}
		parsed, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("%q is no duration, expected one such as \"15s\"", value)
		}
		d.text = parsed
	default:
		return fmt.Errorf("%v is no duration, expected one such as \"15s\"", value)
	}
	// Written so that a NaN is refused as well.
	if inRange := d.number >= 0 && d.number <= longest.Seconds()*1000 && d.text >= 0 && d.text <= longest; !inRange {
		return fmt.Errorf("%v is out of range, expected a duration from 0 to %v", value, longest)
	}
	return nil
}

// number is an integer, which older files have as text.
type number int

// UnmarshalTOML is toml.Unmarshaler.
func (n *number) UnmarshalTOML(value any) error {
	switch value := value.(type) {
	case int64:
		*n = number(value)
		return nil
	case string:
		if parsed, err := strconv.Atoi(value); err == nil {
			*n = number(parsed)
			return nil
		}
	}
	return fmt.Errorf("%v is no whole number", value)
}

// scalar is a text, a number or a boolean, of which the environment knows but texts.
type scalar string

// UnmarshalTOML is toml.Unmarshaler.
func (s *scalar) UnmarshalTOML(value any) error {
	switch value := value.(type) {
	case string:
		*s = scalar(value)
	case int64, bool, float64:
		*s = scalar(fmt.Sprint(value))
	default:
		return fmt.Errorf("%v is no text, number or boolean", value)
	}
	return nil
}

func texts(values map[string]scalar) map[string]string {
	out := make(map[string]string, len(values))
	for key, value := range values {
		out[key] = string(value)
	}
	return out
}

// autostop is a boolean, or "off", "stop" or "suspend".
type autostop string

// UnmarshalTOML is toml.Unmarshaler.
func (a *autostop) UnmarshalTOML(value any) error {
	switch value {
	case false, "off":
		*a = "off"
	case true, "stop":
		*a = "stop"
	case "suspend":
		*a = "suspend"
	default:
		return fmt.Errorf("%v is unknown, expected true, false, \"off\", \"stop\" or \"suspend\"", value)
	}
	return nil
}

// headers is a table of names with a value or a list of values.
type headers []api.CheckHeader

// UnmarshalTOML is toml.Unmarshaler.
func (h *headers) UnmarshalTOML(value any) error {
	table, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%v is no table of headers, expected e.g. {Host = \"example.com\"}", value)
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		header := api.CheckHeader{Name: name}
		list, ok := table[name].([]any)
		if !ok {
			list = []any{table[name]}
		}
		for _, item := range list {
			text, ok := item.(string)
			if !ok {
				return fmt.Errorf("header %q is %v, expected a text", name, item)
			}
			header.Values = append(header.Values, text)
		}
		*h = append(*h, header)
	}
	return nil
}
