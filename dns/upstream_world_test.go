package dns

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// elsewhere is a resolver of the host, made for a test: real sockets at an address
// inside the namespace, answers as the test says.
type elsewhere struct {
	address string
	asked   atomic.Int64 // messages that came, by whatever transport
	servers []*miekg.Server

	mu      sync.Mutex
	handler miekg.HandlerFunc
	probe   miekg.HandlerFunc // answers probes
	seen    []*miekg.Msg
}

// upstream starts one. handler may be changed later by answer.
func (p private) upstream(address string, handler miekg.HandlerFunc) *elsewhere {
	p.t.Helper()
	e := &elsewhere{address: address, handler: handler, probe: nxdomain}
	packet, err := p.ListenPacket(context.Background(), "udp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	listener, err := p.Listen(context.Background(), "tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, server := range []*miekg.Server{{PacketConn: packet, Handler: e}, {Listener: listener, Handler: e}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe() }()
		<-started
		e.servers = append(e.servers, server)
	}
	p.t.Cleanup(e.stop)
	return e
}

// stop closes its sockets.
func (e *elsewhere) stop() {
	for _, server := range e.servers {
		_ = server.Shutdown()
	}
	e.servers = nil
}

// ServeDNS answers probes as a root server would, and all else by the handler.
func (e *elsewhere) ServeDNS(w miekg.ResponseWriter, query *miekg.Msg) {
	e.mu.Lock()
	handler, prober := e.handler, e.probe
	if !probe(query) {
		e.seen = append(e.seen, query.Copy())
	}
	e.mu.Unlock()
	if probe(query) {
		prober(w, query)
		return
	}
	e.asked.Add(1)
	handler(w, query)
}

func (e *elsewhere) answer(handler miekg.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handler = handler
}

// probed says who answers probes; nil: as a root server would.
func (e *elsewhere) probed(handler miekg.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.probe = handler; handler == nil {
		e.probe = nxdomain
	}
}

// questions are the messages that came so far.
func (e *elsewhere) questions() []*miekg.Msg {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.seen)
}

func probe(query *miekg.Msg) bool {
	name := miekg.CanonicalName(query.Question[0].Name)
	return len(name) > len(probePrefix) && name[:len(probePrefix)] == probePrefix
}

// forwarding is a configuration that asks these, from inside the namespace.
func (p private) forwarding(upstreams ...string) Forward {
	return Forward{Upstreams: upstreams, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return p.Dial(ctx, network, nil, address)
	}}
}

func refuse(w miekg.ResponseWriter, query *miekg.Msg) {
	_ = w.WriteMsg(new(miekg.Msg).SetRcode(query, miekg.RcodeRefused))
}

func nxdomain(w miekg.ResponseWriter, query *miekg.Msg) {
	reply := new(miekg.Msg).SetRcode(query, miekg.RcodeNameError)
	reply.Ns = []miekg.RR{record(". 300 IN SOA ns.example. root.example. 1 1 1 1 200")}
	_ = w.WriteMsg(reply)
}

func silent(miekg.ResponseWriter, *miekg.Msg) {}

// with answers each question with these records, "@" standing for the name asked.
func with(records ...string) miekg.HandlerFunc {
	return func(w miekg.ResponseWriter, query *miekg.Msg) {
		reply := new(miekg.Msg).SetReply(query)
		for _, text := range records {
			rr := record(text)
			if rr.Header().Name == "@." {
				rr.Header().Name = query.Question[0].Name
			}
			reply.Answer = append(reply.Answer, rr)
		}
		_ = w.WriteMsg(reply)
	}
}

// record reads a record, "@" being a name of its own here.
func record(text string) miekg.RR {
	if text[0] == '@' {
		text = "@." + text[1:]
	}
	rr, err := miekg.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// until polls a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-tick.C
	}
}

// watcher is an observer that remembers.
type watcher struct {
	mu        sync.Mutex
	up        map[string]bool
	answered  []Answered
	exchanged []Exchanged
	forgotten []string
}

func newWatcher() *watcher { return &watcher{up: make(map[string]bool)} }

func (w *watcher) Answered(a Answered) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered = append(w.answered, a)
}

func (w *watcher) Exchanged(e Exchanged) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exchanged = append(w.exchanged, e)
}

func (w *watcher) Health(upstream string, up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up[upstream] = up
}

func (w *watcher) Forgotten(upstream string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forgotten = append(w.forgotten, upstream)
	delete(w.up, upstream)
}

func (w *watcher) works(upstream string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up[upstream]
}

var quiet = slog.New(slog.DiscardHandler)
