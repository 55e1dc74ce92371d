package api_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
)

// socketPath is short enough for a socket, which a test's own directory is not.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "s")
}

func TestSocketIsItsOwnersAlone(t *testing.T) {
	path := socketPath(t)
	l, err := api.Listen(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("socket of mode %v, expected 0600", info.Mode())
	}
	left, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(left) != 1 {
		t.Errorf("%v are left beside the socket", left)
	}
	must(t, l.Close())
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there after closing: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := socketPath(t)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	// An agent that was killed leaves its socket.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	stale.SetUnlinkOnClose(false)
	must(t, stale.Close())
	l, err := api.Listen(path)
	must(t, err)
	defer l.Close()
	conn, err := net.Dial("unix", path)
	must(t, err)
	conn.Close()
}

func TestSocketInUseIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	first, err := api.Listen(path)
	must(t, err)
	defer first.Close()
	if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), "another agent listens") {
		t.Errorf("error %v, expected that another agent listens", err)
	}
	conn, err := net.Dial("unix", path)
	must(t, err)
	conn.Close()
}

func TestFileInPlaceOfASocketIsLeftAlone(t *testing.T) {
	path := socketPath(t)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), "another kind") {
		t.Errorf("error %v, expected that there is another kind of file", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, error %v", b, err)
	}
}

func TestSocketPathTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("a", 120))
	if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("error %v, expected that the path is too long", err)
	}
}

// The socket of the next agent must survive the end of the one before.
func TestClosingLeavesTheNextSocket(t *testing.T) {
	path := socketPath(t)
	first, err := api.Listen(path)
	must(t, err)
	must(t, os.Remove(path))
	second, err := api.Listen(path)
	must(t, err)
	defer second.Close()
	must(t, first.Close())
	conn, err := net.Dial("unix", path)
	must(t, err)
	conn.Close()
}

func TestNoAgentListens(t *testing.T) {
	path := socketPath(t)
	client, err := api.NewSocketClient(path, 0)
	must(t, err)
	_, err = client.ListOrgsWithResponse(t.Context())
	err = api.Check(nil, err)
	if err == nil || err.Error() != "no agent listens on "+path+"; start one with: sixpn agent" {
		t.Errorf("error %v, expected that no agent listens and what to do", err)
	}
}

// A command that follows "sixpn agent &" at once finds nobody yet.
func TestClientWaitsForAnAgentThatStarts(t *testing.T) {
	path := socketPath(t)
	client, err := api.NewSocketClient(path, time.Minute)
	must(t, err)
	answered := make(chan error, 1)
	go func() {
		_, err := client.ListOrgsWithResponse(t.Context())
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("an answer (%v) before there was an agent", err)
	case <-time.After(100 * time.Millisecond):
	}
	l, err := api.Listen(path)
	must(t, err)
	server := http.Server{Handler: http.NotFoundHandler()}
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	must(t, <-answered)
}
