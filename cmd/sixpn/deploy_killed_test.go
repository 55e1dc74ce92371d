package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/internal/nettest"
)

// asProgram has this program, started again, be the command line.
const asProgram = "SIXPN_TEST_AS_PROGRAM"

// doomed starts the command line as a process of its own, and kills it when it asks for
// its change number n, which is not made. It returns the requests for changes.
func (w *world) doomed(n int, args ...string) (changes []string, killed bool) {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "cli")
	must(w.t, err)
	defer os.RemoveAll(dir)
	command := exec.Command(os.Args[0], args...)
	command.Env = append(os.Environ(), asProgram+"=1", "SIXPN_SOCKET="+filepath.Join(dir, "api.sock"))
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output

	var mu sync.Mutex
	through := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "sixpn" },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
		}},
	}
	l, err := net.Listen("unix", filepath.Join(dir, "api.sock"))
	must(w.t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		renewal := strings.HasSuffix(r.URL.Path, "/lease") && r.Method == http.MethodPost && r.Header.Get("Fly-Machine-Lease-Nonce") != ""
		if r.Method != http.MethodGet && !renewal {
			changes = append(changes, r.Method+" "+r.URL.Path)
		}
		if killed = killed || len(changes) == n; killed {
			_ = command.Process.Kill()
			panic(http.ErrAbortHandler)
		}
		through.ServeHTTP(rw, r)
	})}
	must(w.t, command.Start())
	go func() { _ = server.Serve(l) }() // before, requests wait
	defer server.Close()
	err = command.Wait()
	mu.Lock()
	defer mu.Unlock()
	if err != nil && !killed {
		w.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, &output)
	}
	return changes, killed
}

// A deploy that is killed at any of its steps keeps nothing out of Flycast for longer
// than its leases, and the next one brings everything to what it should be.
func TestDeployKilled(t *testing.T) {
	w := newShop(t)
	deploy := func(version string) []string {
		return quickly("-c", flyToml(t, strings.Replace(serves, "hello", version, 1)), "--count", "2", "--lease-ttl", "1s")
	}
	do(t, quickly("-c", flyToml(t, serves))...)
	for n := 1; ; n++ {
		changes, killed := w.doomed(n, deploy(fmt.Sprint("doomed-", n))...)
		if !killed {
			if n < 10 { // two leases, made, cordoned, started, given back; cordoned, updated, given back; two leases
				t.Errorf("a deploy has %d changes: %q", n-1, changes)
			}
			break
		}
		must(t, nettest.Eventually(t.Context(), "nothing is held or cordoned, after "+strings.Join(changes, ", "), func(context.Context) error {
			for _, m := range asJSON[[]api.Machine](t, "machine", "list", "-a", "web") {
				if m.Cordoned || w.store.Snapshot().Machines[m.ID].Cordoned {
					return errors.New("it is cordoned: " + m.Name)
				}
				if lease := sixpnRun(t, "machine", "leases", "view", m.ID, "-a", "web"); !strings.Contains(lease.out, "none") {
					return errors.New("it is held: " + lease.out)
				}
			}
			return nil
		}))
		again := asJSON[rolled](t, deploy(fmt.Sprint("again-", n))...)
		run := fmt.Sprintf("run again-%d release %d started", n, again.Release)
		demandMachines(t, "app-1 "+run, "app-2 "+run)
		do(t, "scale", "count", "1", "-a", "web", "--settle-time", "50ms")
	}
}
