package machine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

func TestLogsRotate(t *testing.T) {
	config := driverConfig(t)
	d, err := machine.NewDriver(config)
	if err != nil {
		t.Fatal(err)
	}
	spec := shell("rot", "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); sleep 0; done")
	spec.Logs = machine.LogLimits{MaxBytes: 4096, MaxFiles: 3}
	out, _ := run(t, d, spec)
	if !strings.HasSuffix(out, "line 498\nline 499\n") {
		t.Errorf("the last lines are missing: …%q", out[max(0, len(out)-60):])
	}
	if strings.Contains(out, "line 0\n") {
		t.Error("the oldest lines are still there")
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("line %d", 500-len(lines)+i); line != want {
			t.Fatalf("line %q, expected %q: something between is missing", line, want)
		}
	}
	entries, err := os.ReadDir(filepath.Join(config.Dir, "rot", "log"))
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d files, %v, expected 3", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > 4096 {
			t.Errorf("%s has %d bytes (%v), expected at most 4096", e.Name(), info.Size(), err)
		}
	}
}

func TestLogsFollowAcrossRotationsAndRuns(t *testing.T) {
	d := newDriver(t)
	spec := shell("fol", "i=0; while [ $i -lt 300 ]; do echo a $i; i=$((i+1)); done")
	spec.Logs = machine.LogLimits{MaxBytes: 2048, MaxFiles: 100}
	p, err := d.Create(await.Context(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(await.Context(t))
	defer cancel()
	var followed buffer
	done := make(chan error, 1)
	go func() { done <- d.Logs(ctx, "fol", true, &followed) }()
	if err := p.Start(await.Context(t)); err != nil {
		t.Fatal(err)
	}
	wait(t, p)
	spec.Exec[2] = "echo second run"
	wait(t, start(t, d, spec))
	var want strings.Builder
	for i := range 300 {
		fmt.Fprintf(&want, "a %d\n", i)
	}
	want.WriteString("second run\n")
	await.True(t, "all lines", func() bool { return followed.String() == want.String() })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLogsFollowEndsWithTheMachine(t *testing.T) {
	d := newDriver(t)
	run(t, d, shell("gone", "echo x"))
	done := make(chan error, 1)
	go func() { done <- d.Logs(await.Context(t), "gone", true, &buffer{}) }()
	if err := d.Remove(await.Context(t), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil && !os.IsNotExist(err) && !strings.Contains(err.Error(), "no logs") {
		t.Error(err)
	}
}

func TestLongLinesComeOutWhole(t *testing.T) {
	d := newDriver(t)
	config := strings.Repeat("x", 100_000)
	out, _ := run(t, d, shell("long", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end"))
	if out != config+"\nend\n" {
		t.Errorf("%d bytes came out, expected %d", len(out), len(config)+5)
	}
}

// A line has its time once, however many pieces it is kept in.
func TestStampedLogs(t *testing.T) {
	d := newDriver(t)
	run(t, d, shell("stamped", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end"))
	var b buffer
	if err := d.LogsAfter(t.Context(), "stamped", "", true, false, &b); err != nil {
		t.Fatal(err)
	}
	pattern := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (x+)\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z end\n$`)
	if found := pattern.FindStringSubmatch(b.String()); found == nil || len(found[1]) != 100_000 {
		t.Errorf("%d bytes that begin with %.60q, expected two lines with their times", len(b.String()), b.String())
	}
}

func TestLogLinesOnDisk(t *testing.T) {
	config := driverConfig(t)
	d, err := machine.NewDriver(config)
	if err != nil {
		t.Fatal(err)
	}
	run(t, d, shell("disk", "echo out; sleep 0.01; echo err >&2"))
	b, err := os.ReadFile(filepath.Join(config.Dir, "disk", "log", "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	pattern := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout F out\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stderr F err\n$`)
	if !pattern.Match(b) {
		t.Errorf("the log is %q, expected time, stream, F and the line", b)
	}
}

func TestLogsOfUnknownMachine(t *testing.T) {
	d := newDriver(t)
	if err := d.Logs(t.Context(), "none", false, &buffer{}); err == nil || !strings.Contains(err.Error(), "no logs") {
		t.Errorf("error %v, expected it to say that there are none", err)
	}
}

// Read again from a time, a log begins with the first line of that time, whichever file
// that is in; from one that is not kept, with the oldest.
func TestLogsAfter(t *testing.T) {
	d := newDriver(t)
	spec := shell("after", "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; done; head -c 50000 /dev/zero | tr '\\0' x; echo; echo end")
	spec.Logs = machine.LogLimits{MaxBytes: 20_000, MaxFiles: 100}
	run(t, d, spec)
	read := func(after string) string {
		t.Helper()
		var b buffer
		if err := d.LogsAfter(t.Context(), "after", after, true, false, &b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	all := read("")
	stamps := map[string]bool{}
	for rest := all; rest != ""; {
		stamp, _, _ := strings.Cut(rest, " ")
		if !stamps[stamp] {
			if got := read(stamp); got != rest {
				t.Errorf("from %s on there are %d bytes that begin with %.60q, expected %d and %.60q", stamp, len(got), got, len(rest), rest)
			}
		}
		stamps[stamp] = true
		_, rest, _ = strings.Cut(rest, "\n")
	}
	if got := read("2006-01-02T15:04:05.000000000Z"); got != all {
		t.Errorf("from a time that is not kept there are %d bytes, expected all %d", len(got), len(all))
	}
}
