package main

import (
	"bytes"
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
)

func TestLogsOfApp(t *testing.T) {
	w := newWorldWithApps(t)
	one, two := runs(t, "-r", "fra", "--", "run", "hello"), runs(t, "--", "run", "there")
	w.writes(two, "in between\n")
	w.writes(one, "and more\nno end")
	lines := []string{"web[" + one + "] fra hello", "web[" + one + "] fra and more", "web[" + one + "] fra no end", "web[" + two + "] ams there", "web[" + two + "] ams in between"}
	got := columns(do(t, "logs", "-a", "web", "--no-tail"))
	if diff := cmp.Diff([]string{lines[0], lines[3], lines[4], lines[1], lines[2]}, got); diff != "" {
		t.Errorf("logs --no-tail (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lines[3:], columns(do(t, "logs", "-a", "web", "-n", "-r", "ams"))); diff != "" {
		t.Errorf("logs of a region (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lines[:3], columns(do(t, "logs", "-a", "web", "-n", "--machine", one))); diff != "" {
		t.Errorf("logs of a Machine (-want +got):\n%s", diff)
	}
	w.writes(one, "\n")
	three := runs(t, "-n", "three", "--", "run", "there")
	entry := asJSON[logEntry](t, "logs", "-a", "web", "-n", "--machine", three)
	if diff := cmp.Diff(logEntry{"web", three, "ams", "there"}, entry); diff != "" {
		t.Errorf("logs --json (-want +got):\n%s", diff)
	}
	if r := sixpnRun(t, "logs", "-a", "web", "-n", "--machine", "00000000000000"); r.code != exitFailed || !strings.Contains(r.err, "no Machine") {
		t.Errorf("logs of a Machine that there is not: %+v", r)
	}
}

// Followed, lines of Machines that start later appear too, and none twice.
func TestLogsFollow(t *testing.T) {
	w := newWorldWithApps(t)
	one := runs(t, "--", "run", "first")
	ctx, interrupt := context.WithCancel(t.Context())
	out := &notified{wrote: make(chan struct{}, 100)}
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"logs", "-a", "web"}, nil, out, &bytes.Buffer{}) }()
	<-out.wrote
	two := runs(t, "--", "run", "second")
	<-out.wrote
	do(t, "machine", "stop", one)
	w.writes(one, "between\n")
	do(t, "machine", "start", one)
	<-out.wrote // between, or first of the new run
	<-out.wrote
	interrupt()
	if code := <-ended; code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	want := sorted(
		"web["+one+"] ams first", "web["+two+"] ams second", "web["+one+"] ams between", "web["+one+"] ams first",
	)
	if diff := cmp.Diff(want, sorted(columns(out.String())...)); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
}

// An agent that goes away is no end of the logs: one that stays away is said, and that
// half a line was written is no line.
func TestLogsBreakOff(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := api.Listen(socket)
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/logs") {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"id":"00000000000001","state":"started"}`))
			return
		}
		_, _ = w.Write([]byte("2026-01-02T03:04:05.000000000Z whole\n2026-01-02T03:04:06.000000000Z half"))
		must(t, http.NewResponseController(w).Flush())
		panic(http.ErrAbortHandler)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	r := sixpnRun(t, "--socket", socket, "--wait-agent", "100ms", "machine", "logs", "-f", "-a", "web", "00000000000001")
	if r.code != exitFailed || r.out != "whole\n" || !strings.Contains(r.err, "broke off: the agent stopped") {
		t.Errorf("logs of an agent that stops: %+v", r)
	}
}

func sorted(lines ...string) []string { return slices.Sorted(slices.Values(lines)) }
