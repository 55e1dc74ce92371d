package api_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

// What host two refuses to hosts, and to those who only say that they are hosts.
func TestHostsAreRefused(t *testing.T) {
	p := newPair(t)
	p.there.exec = func(context.Context, string, api.Command) (int, error) {
		t.Error("the command was run")
		return 0, nil
	}
	stranger := newPair(t)
	removed := member(t, p.store, "three", "127.0.0.1:1")
	three := p.join("three", "192.0.2.3:51821", removed)
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
		"live":   func() answer { return w.get("/v1/apps/web/machines/" + m.ID + "/live") },
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
