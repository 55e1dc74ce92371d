package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

	if a := p.get(p.at + "/logs?timestamps=true"); string(a.body) != "2026-01-02T03:04:05.000000006Z one\n" {
		t.Errorf("logs with their times: %d %q", a.code, a.body)
	}
	p.plane.live = api.Live{
		Port: &api.PortStatus{Device: "m1", MTU: 1420, RxPackets: 3}, Drops: []api.DropStatus{{Reason: "no_machine", Packets: 2}},
		Checks: []state.CheckStatus{{Name: "up", Status: state.CheckCritical, Output: "refused"}},
		Limits: []api.LimitStatus{{Vip: "fdaa:0:1:0:1::1", Protocol: "tcp", Port: 80, InternalPort: 8080, HardLimit: 20, Hosts: []api.LimitShare{{HostName: "one", Flows: 3, Share: 8, Standing: "agreed"}}}},
	}
	var live api.MachineLive
	p.get(p.at+"/live").into(t, &live)
	want := api.MachineLive{
		HostName: "two", Port: p.plane.live.Port, Drops: p.plane.live.Drops, Limits: p.plane.live.Limits,
		Checks: []api.CheckStatus{{Name: "up", Status: "critical", Output: "refused"}},
	}
	if !cmp.Equal(live, want) {
		t.Errorf("live: %+v, expected %+v", live, want)
	}
	p.plane.live = api.Live{}
	if a := p.get(p.at + "/live"); string(a.body) != `{"checks":[],"drops":[],"host_name":"two","limits":[]}`+"\n" {
		t.Errorf("live, without a port: %d %s", a.code, a.body)
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

// One host has no more than its number of requests answered at once, and what has ended
// counts no more.
func TestHostsAskSoMuchAtOnce(t *testing.T) {
	p := newPair(t)
	p.stopTwo()
	p.most = 1
	listener, err := net.Listen("tcp4", p.host.Endpoint)
	must(t, err)
	p.serve(listener, p.store)
	p.there.exec = func(context.Context, string, api.Command) (int, error) { return 0, nil }
	p.there.append("one\n")
	ctx, cancel := context.WithCancel(t.Context())
	followed := p.follow(ctx)
	if _, err := io.ReadFull(followed.Body, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	const says = "host two is at work on 1 requests of host one"
	if a := p.post(p.at+"/exec", `{"cmd":"true"}`); a.code != http.StatusServiceUnavailable || !strings.Contains(a.failure.Error, says) {
		t.Errorf("beside what is followed: %d %s, expected 503 and %q", a.code, a.body, says)
	}
	cancel()
	for t.Context().Err() == nil {
		a := p.post(p.at+"/exec", `{"cmd":"true"}`)
		if a.code == http.StatusOK {
			return
		}
		if !strings.Contains(a.failure.Error, says) {
			t.Fatalf("after what was followed: %d %s", a.code, a.body)
		}
	}
}

// flood is a Machine that writes faster than anybody reads.
type flood struct {
	playedMachines
	size    int64
	written atomic.Int64
}

func (f *flood) Logs(_ context.Context, _ string, _ api.LogQuery, w io.Writer) error {
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
