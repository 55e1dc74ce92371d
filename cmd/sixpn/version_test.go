package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

// The version needs no agent.
func TestVersion(t *testing.T) {
	r := sixpnRun(t, "version", "--socket", "/nonexistent")
	if want := "sixpn " + version(); r.code != 0 || !strings.HasPrefix(r.out, want) || !strings.Contains(r.out, runtime.Version()) {
		t.Errorf("exit code %d, %q, expected it to begin with %q", r.code, r.out, want)
	}
	r = sixpnRun(t, "version", "--json")
	var b build
	if err := json.Unmarshal([]byte(r.out), &b); err != nil || b.Version != version() || b.Go != runtime.Version() || b.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%q is %+v, error %v", r.out, b, err)
	}
	if r := sixpnRun(t, "version", "of", "what"); r.code != exitUsage {
		t.Errorf("with arguments the exit code is %d, expected %d", r.code, exitUsage)
	}
}
