package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// DurationValue is a time span as the Machines API writes it: a Go duration such
// as "1m30s", or a number of nanoseconds. It is written as the former.
type DurationValue time.Duration

// MarshalJSON writes a Go duration.
func (d DurationValue) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}

// UnmarshalJSON reads either form. A negative duration is an error.
func (d *DurationValue) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		parsed, err := parseDuration(text)
		*d = DurationValue(parsed)
		return err
	}
	var nanoseconds int64
	if json.Unmarshal(b, &nanoseconds) != nil || nanoseconds < 0 {
		return fmt.Errorf("is %s, expected a duration such as \"5s\" or a number of nanoseconds", b)
	}
	*d = DurationValue(nanoseconds)
	return nil
}

// parseDuration reads what a query parameter or a string member holds. Empty is 0.
func parseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	var nanoseconds int64
	if json.Unmarshal([]byte(text), &nanoseconds) == nil && nanoseconds >= 0 {
		return time.Duration(nanoseconds), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("is %q, expected a duration such as \"5s\" or a number of nanoseconds", text)
	}
	return d, nil
}

// AutostopValue is what happens to an idle Machine: "off", "stop" or "suspend".
// Older clients send a boolean, which is "stop" or "off".
type AutostopValue string

// UnmarshalJSON reads either form.
func (a *AutostopValue) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "false", `"off"`:
		*a = "off"
	case "true", `"stop"`:
		*a = "stop"
	case `"suspend"`:
		*a = "suspend"
	default:
		return fmt.Errorf("is %s, expected true, false, \"off\", \"stop\" or \"suspend\"", b)
	}
	return nil
}
