package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
)

func TestDurationIsReadLiberally(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`"5s"`: 5 * time.Second, `"1m30s"`: 90 * time.Second, `5000000000`: 5 * time.Second,
		`"5000000000"`: 5 * time.Second, `""`: 0, `0`: 0, `"0s"`: 0,
	} {
		var d api.DurationValue
		if err := json.Unmarshal([]byte(text), &d); err != nil || time.Duration(d) != want {
			t.Errorf("%s is read as %v, error %v, expected %v", text, time.Duration(d), err, want)
		}
	}
	for _, text := range []string{`"5"s`, `"-5s"`, `-5`, `1.5`, `true`, `"soon"`, `{}`} {
		var d api.DurationValue
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("%s is read as %v, expected an error", text, time.Duration(d))
		}
	}
	if b, err := json.Marshal(api.DurationValue(90 * time.Second)); err != nil || string(b) != `"1m30s"` {
		t.Errorf("written as %s, error %v", b, err)
	}
}

func TestAutostopIsReadLiberally(t *testing.T) {
	for text, want := range map[string]api.AutostopValue{
		"true": "stop", "false": "off", `"off"`: "off", `"stop"`: "stop", `"suspend"`: "suspend",
	} {
		var a api.AutostopValue
		if err := json.Unmarshal([]byte(text), &a); err != nil || a != want {
			t.Errorf("%s is read as %q, error %v, expected %q", text, a, err, want)
		}
	}
}
