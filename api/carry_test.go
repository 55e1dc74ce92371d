package api_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// What is asked of host one for a Machine of host two is what two says.
func TestCarried(t *testing.T) {
	p := newPair(t)
	p.there.exec = func(_ context.Context, id string, c api.Command) (int, error) {
		if id != p.machine.ID || c.Exec[0] != "tee" {
			return 0, errors.New("exec is not found in PATH")
		}
		_, err := io.Copy(c.Stdout, c.Stdin)
		_, _ = io.WriteString(c.Stderr, "noted")
		return 3, err
	}
	var got api.ExecResult
	p.post(p.at+"/exec", `{"command":["tee","x"],"stdin":"AAEC/w==","encoding":"base64"}`).into(t, &got)
	if want := (api.ExecResult{ExitCode: 3, Stdout: "AAEC/w==", Stderr: "bm90ZWQ=", Encoding: "base64"}); got != want {
		t.Errorf("exec: %+v, expected %+v", got, want)
	}
	var signalled []syscall.Signal
	p.there.signal = func(id string, s syscall.Signal) error {
		if signalled = append(signalled, s); len(signalled) > 1 {
			return errors.New("its command has just ended")
		}
		return nil
	}
	if a := p.post(p.at+"/signal", `{"signal":"hup"}`); a.code != http.StatusOK || signalled[0] != syscall.SIGHUP {
		t.Errorf("signal: %d %s, sent %v", a.code, a.body, signalled)
	}
	p.there.append("one\n")
	if a := p.get(p.at + "/logs"); string(a.body) != "one\n" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("logs: %d %q of %s", a.code, a.body, a.header.Get("Content-Type"))
	}

	// What is asked from a host.
	org := "/v1/orgs/acme"
	if a := p.get(org + "/dig?name=web.internal&host_name=two"); a.code != http.StatusOK || p.asked.name != "web.internal" || p.world.names.name != "" {
		t.Errorf("dig on two: %d %s, one was asked for %q", a.code, a.body, p.world.names.name)
	}
	if a := p.post(org+"/ping?host_name=two", `{"target":"web.internal","count":3}`); a.code != http.StatusOK || p.asked.echo.Count != 3 || strings.Count(string(a.body), "\n") != 4 {
		t.Errorf("ping from two: %d %s", a.code, a.body)
	}
	if a := p.get(org + "/dig?name=web.internal&host_name=one"); a.code != http.StatusOK || p.world.names.name != "web.internal" {
		t.Errorf("dig on one: %d %s", a.code, a.body)
	}
	if a := p.get(org + "/dig?name=web.internal&host_name=nobody"); a.code != http.StatusNotFound || a.failure.Field != "host_name" {
		t.Errorf("dig on a host that there is not: %d %s", a.code, a.body)
	}
	before := p.store.Snapshot().Hosts[p.host.ID].PublicKey
	p.durable(t, p.post("/v1/hosts/two/rotate-key", ""), http.StatusOK)
	if after := p.store.Snapshot().Hosts[p.host.ID].PublicKey; after == before {
		t.Error("host two has the key that it had")
	}

	// Refusals and failures are those of the other host too.
	lease, revision, err := p.store.AcquireLease(t.Context(), p.machine.ID, state.LeaseRequest{TTL: time.Minute})
	must(t, err)
	p.seen(revision)
	for name, row := range map[string]struct {
		method, path, body, nonce, says string
		code                            int
	}{
		"no such program":          {"POST", "/exec", `{"cmd":"a"}`, "", "exec is not found in PATH", http.StatusUnprocessableEntity},
		"no command":               {"POST", "/exec", `{}`, "", "no command", http.StatusUnprocessableEntity},
		"a lease of somebody else": {"POST", "/signal", `{"signal":"hup"}`, "", "is leased until", http.StatusConflict},
		"with the lease":           {"POST", "/signal", `{"signal":"hup"}`, lease.Nonce, "has just ended", http.StatusUnprocessableEntity},
	} {
		if a := p.holding(row.nonce, row.method, p.at+row.path, "application/json", row.body); a.code != row.code || !strings.Contains(a.failure.Error, row.says) {
			t.Errorf("%s: answer %d %s, expected %d and %q", name, a.code, a.body, row.code, row.says)
		}
	}
	p.become(p.machine.ID, state.Stopping, nil)
	if a := p.post(p.at+"/exec", `{"cmd":"a"}`); a.code != http.StatusPreconditionFailed || !strings.Contains(a.failure.Error, "expected started") {
		t.Errorf("exec in what does not run: %d %s", a.code, a.body)
	}
}

// follow begins to read what the Machine of two writes, by host one.
func (p *pair) follow(ctx context.Context) *http.Response {
	p.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sixpn"+p.at+"/logs?follow=true", nil)
	must(p.t, err)
	response, err := p.http.Do(request)
	must(p.t, err)
	p.t.Cleanup(func() { response.Body.Close() })
	return response
}

func TestCarriedStream(t *testing.T) {
	for name, end := range map[string]func(p *pair) (well bool){
		"the Machine ends": func(p *pair) bool {
			p.become(p.machine.ID, state.Stopped, new(int))
			return true
		},
		"the log breaks off": func(p *pair) bool {
			p.there.mu.Lock()
			p.there.failure = errors.New("the disk is gone")
			p.there.mu.Unlock()
			p.there.append("")
			return false
		},
		"the other agent stops": func(p *pair) bool {
			p.stopTwo()
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.there.append("one\n")
			response := p.follow(t.Context())
			line := make([]byte, 4)
			for _, text := range []string{"one\n", "two\n", "two\n"} {
				if _, err := io.ReadFull(response.Body, line); err != nil || string(line) != text {
					t.Fatalf("followed %q, error %v, expected %q while it goes on", line, err, text)
				}
				p.there.append("two\n")
			}
			well := end(p)
			if rest, err := io.ReadAll(response.Body); (err == nil) != well || well && string(rest) != "two\n" {
				t.Errorf("then %q, error %v", rest, err)
			}
		})
	}
}

// Who asks and goes away has what was asked end on the other host.
func TestCarriedCancellation(t *testing.T) {
	p := newPair(t)
	began, ended := make(chan struct{}), make(chan error, 1)
	p.there.exec = func(ctx context.Context, _ string, _ api.Command) (int, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sixpn"+p.at+"/exec", strings.NewReader(`{"cmd":"sleep 60"}`))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	answered := make(chan error, 1)
	go func() {
		response, err := p.http.Do(request)
		if err == nil {
			response.Body.Close()
		}
		answered <- err
	}()
	<-began
	cancel()
	if err := <-answered; !errors.Is(err, context.Canceled) {
		t.Errorf("who went away got %v", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the command ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the command goes on")
	}
}

// flood is a Machine that writes faster than anybody reads.
type flood struct {
	playedMachines
	size    int64
	written atomic.Int64
}

func (f *flood) Logs(_ context.Context, _ string, _ bool, w io.Writer) error {
	block := make([]byte, 64<<10)
	for f.written.Load() < f.size {
		n, err := w.Write(block)
		f.written.Add(int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

// What nobody reads is not read from the Machine either, but for what is on the way.
func TestCarriedBackPressure(t *testing.T) {
	const (
		size = 64 << 20
		way  = 24 << 20 // windows and socket buffers, some times over
	)
	p := newPair(t)
	f := &flood{size: size}
	p.flood = f
	response := p.follow(t.Context())
	// It stands still once the way is full: as long as it moves there is more to wait for.
	last, since := int64(-1), time.Now()
	p.eventually("the Machine's output stands still", func() bool {
		if now := f.written.Load(); now != last {
			last, since = now, time.Now()
		}
		return last > 0 && time.Since(since) > 100*time.Millisecond
	})
	if last > way {
		t.Errorf("%d bytes were taken from the Machine though nobody reads, expected at most %d", last, way)
	}
	n, err := io.Copy(io.Discard, response.Body)
	if n != size || err != nil {
		t.Errorf("in the end %d bytes arrived, error %v; expected %d", n, err, size)
	}
}

// What host two refuses to hosts, and to those who only say that they are hosts.
func TestHostsAreRefused(t *testing.T) {
	p := newPair(t)
	p.there.exec = func(context.Context, string, api.Command) (int, error) {
		t.Error("the command was run")
		return 0, nil
	}
	stranger := newPair(t)
	removed := member(t, p.store, "three", "127.0.0.1:1")
	three := p.join("three", "192.0.2.3:51821")
	revision, err := p.store.RemoveHost(t.Context(), three.ID, false)
	must(t, err)
	p.seen(revision)
	unknown := member(t, p.store, "nobody", "127.0.0.1:1")
	local := p.create("web", state.Restart{}) // on one
	p.become(local.ID, state.Started, nil)
	anonymous := p.transport(p.one, p.store)
	anonymous.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, network, p.host.Endpoint)
	}
	forged := p.transport(p.one, p.store)
	forged.DialTLSContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		config := stranger.one.ClientTLS() // of another fleet, with the same name
		config.InsecureSkipVerify = true
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, p.host.Endpoint)
	}
	one := p.transport(p.one, p.store)
	exec := p.at + "/exec"
	for name, row := range map[string]struct {
		as                 http.RoundTripper
		method, path, body string
		code               int // 0: there is no answer
		says               string
	}{
		"no certificate":             {anonymous, "POST", exec, `{"cmd":"a"}`, http.StatusUnauthorized, "certificate"},
		"another fleet's":            {forged, "POST", exec, `{"cmd":"a"}`, 0, "certificate"},
		"a host that was removed":    {p.transport(removed, p.store), "POST", exec, `{"cmd":"a"}`, http.StatusForbidden, `"three" is not of this fleet any more`},
		"a host that there is not":   {p.transport(unknown, p.store), "POST", exec, `{"cmd":"a"}`, http.StatusForbidden, `"nobody" is not of this fleet`},
		"what is not for hosts":      {one, "POST", "/v1/orgs", `{"slug":"new"}`, http.StatusForbidden, "not for other hosts"},
		"another method":             {one, "GET", exec, "", http.StatusForbidden, "not for other hosts"},
		"the store":                  {one, "GET", "/v1/store/export", "", http.StatusForbidden, "not for other hosts"},
		"what there is not":          {one, "GET", "/v1/nothing", "", http.StatusForbidden, "not for other hosts"},
		"around the list":            {one, "POST", p.at + "/exec/../stop", "", http.StatusForbidden, "not for other hosts"},
		"too much":                   {one, "POST", exec, `{"cmd":"a","stdin":"` + strings.Repeat("x", maxBody) + `"}`, http.StatusRequestEntityTooLarge, "too large"},
		"what the document has not":  {one, "POST", exec, `{"cmd":"a","sudo":true}`, http.StatusUnprocessableEntity, "sudo"},
		"what would be carried back": {one, "POST", "/v1/apps/web/machines/" + local.ID + "/exec", `{"cmd":"a"}`, http.StatusServiceUnavailable, "to that one it is on host one"},
	} {
		t.Run(name, func(t *testing.T) {
			before := p.revision()
			a, err := p.askTwo(row.as, row.method, row.path, row.body)
			if a.code != row.code || row.code == 0 && (err == nil || !strings.Contains(err.Error(), row.says)) || row.code > 0 && !strings.Contains(a.failure.Error, row.says) {
				t.Errorf("answer %d %s, error %v; expected %d and %q", a.code, a.body, err, row.code, row.says)
			}
			if after := p.revision(); after != before {
				t.Errorf("the store went from revision %d to %d", before, after)
			}
		})
	}
}

// Hosts that do not answer: at once, and with what is known of them.
func TestHostsThatDoNotAnswer(t *testing.T) {
	silent, err := net.Listen("tcp4", "127.0.0.1:0") // takes connections, and says nothing
	must(t, err)
	defer silent.Close()
	gone, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	must(t, gone.Close())
	for name, row := range map[string]struct {
		change func(p *pair)
		says   []string
	}{
		"its agent is away": {func(p *pair) { p.stopTwo() }, []string{"host two at", "connection refused", "nothing was done"}},
		"it says nothing":   {func(p *pair) { p.move(silent.Addr().String()) }, []string{"host two at " + silent.Addr().String(), "deadline exceeded"}},
		"it has moved away": {func(p *pair) { p.move(gone.Addr().String()) }, []string{gone.Addr().String(), "connection refused"}},
		"another host answers": {func(p *pair) {
			p.stopTwo()
			listener, err := net.Listen("tcp4", p.host.Endpoint)
			must(p.t, err)
			p.two = member(p.t, p.store, "three", p.host.Endpoint)
			p.serve(listener, p.store)
		}, []string{"certificate is valid for three, not two", "nothing was done"}},
		"it was always lost": {func(p *pair) { p.store.SetHost(p.world.host) }, []string{"host two", "is lost since before", "sixpn hosts remove two --force"}},
		"it is lost": {func(p *pair) {
			p.store.SetHost(p.world.host)
			p.alive(p.host.ID)
			p.lose(p.host.ID)
		}, []string{"host two", "is lost since 2", "sixpn hosts remove two --force"}},
		"it was removed": {func(p *pair) {
			p.store.SetHost(p.world.host)
			revision, err := p.store.RemoveHost(t.Context(), p.host.ID, true)
			must(t, err)
			p.seen(revision)
		}, []string{"no Machine"}},
	} {
		t.Run(name, func(t *testing.T) {
			dial := patience
			if name == "it says nothing" {
				dial = 500 * time.Millisecond
			}
			p := newPairThatWaits(t, dial, patience)
			row.change(p)
			a := p.post(p.at+"/exec", `{"cmd":"true"}`)
			if a.code != http.StatusServiceUnavailable && a.code != http.StatusNotFound {
				t.Errorf("answer %d %s", a.code, a.body)
			}
			for _, part := range row.says {
				if !strings.Contains(a.failure.Error, part) {
					t.Errorf("answer %q, expected %q in it", a.failure.Error, part)
				}
			}
		})
	}
}

// A host that is alone has nobody to ask.
func TestAloneAmongHosts(t *testing.T) {
	w := newWorld(t)
	w.seed()
	m := w.createOn(w.another("two"))
	for name, ask := range map[string]func() answer{
		"exec":   func() answer { return w.post("/v1/apps/web/machines/"+m.ID+"/exec", `{"cmd":"true"}`) },
		"signal": func() answer { return w.post("/v1/apps/web/machines/"+m.ID+"/signal", `{"signal":"hup"}`) },
		"logs":   func() answer { return w.get("/v1/apps/web/machines/" + m.ID + "/logs") },
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(t, refusal{code: http.StatusServiceUnavailable, status: "unavailable"}, ask)
		})
	}
}

// A host that goes away without a word, as one that loses its power does, is not waited
// for for ever.
func TestHostGoesSilent(t *testing.T) {
	p := newPairThatWaits(t, patience, 2*time.Second)
	cable := newCable(t, p.host.Endpoint)
	p.move(cable.address)
	began := make(chan struct{})
	p.there.exec = func(ctx context.Context, _ string, _ api.Command) (int, error) {
		close(began)
		<-ctx.Done()
		return 0, ctx.Err()
	}
	answered := p.later("", "POST", p.at+"/exec", `{"cmd":"sleep 60"}`)
	<-began
	cable.cut()
	a := <-answered
	if a.code != http.StatusServiceUnavailable || !strings.Contains(a.failure.Error, "whether it did what it was asked is not known") {
		t.Errorf("answer %d %s", a.code, a.body)
	}
}

// What host one knows already, host two waits for before it refuses.
func TestCarriedAheadOfTheOther(t *testing.T) {
	p := newPair(t)
	behind := &late{Store: p.store, old: p.store.Snapshot()}
	p.stopTwo()
	listener, err := net.Listen("tcp4", p.host.Endpoint)
	must(t, err)
	p.serve(listener, behind)
	p.there.exec = func(context.Context, string, api.Command) (int, error) { return 7, nil }
	m := p.createOn(p.host)
	var got api.ExecResult
	p.post("/v1/apps/web/machines/"+m.ID+"/exec", `{"cmd":"true"}`).into(t, &got)
	if got.ExitCode != 7 || !behind.waited.Load() {
		t.Errorf("exec in a new Machine: %+v, waited %t", got, behind.waited.Load())
	}
}

// late has an old snapshot until somebody waits for a newer one.
type late struct {
	*state.Store
	old    *state.Snapshot
	waited atomic.Bool
}

func (l *late) Snapshot() *state.Snapshot {
	if l.waited.Load() {
		return l.Store.Snapshot()
	}
	return l.old
}

func (l *late) Wait(ctx context.Context, after int64) (*state.Snapshot, error) {
	l.waited.Store(true)
	return l.Store.Wait(ctx, after)
}
