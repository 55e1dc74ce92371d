package dns

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

const (
	first  = "127.0.0.1:5301"
	second = "127.0.0.1:5302"
	// nobody is an address where no resolver listens.
	nobody = "127.0.0.1:5399"
)

// quick is forwarding with intervals for tests.
func (p private) quick(upstreams ...string) Forward {
	c := p.forwarding(upstreams...)
	c.Timeout, c.Patience = 300*time.Millisecond, 2*time.Second
	c.ProbeFirst, c.ProbeLast, c.CheckInterval = 10*time.Millisecond, 50*time.Millisecond, time.Millisecond
	return c
}

// forwarder is a forwarder without a server around it.
func (p private) forwarder(config Forward, observer Observer) *forwarder {
	f := newForwarder(config, observer, slog.New(slog.DiscardHandler))
	p.t.Cleanup(f.close)
	return f
}

// put asks a forwarder as a Machine of acme.
func (f *forwarder) put(query *miekg.Msg) (*miekg.Msg, Source) {
	reply := new(miekg.Msg).SetReply(query)
	judge(query, reply)
	return f.resolve(context.Background(), machineOf(acme), query, reply)
}

func machineOf(n sixpn.Network) sixpn.Fields {
	return sixpn.Fields{Network: n, Host: host, Machine: asker}
}

// brief is a reply as one line: status, flags, answers, and why there is none.
func brief(reply *miekg.Msg) string {
	words := []string{miekg.RcodeToString[reply.Rcode]}
	for _, rr := range reply.Answer {
		words = append(words, strings.Join(strings.Fields(rr.String()), " "))
	}
	if opt := reply.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			if why, ok := option.(*miekg.EDNS0_EDE); ok {
				words = append(words, "because "+why.ExtraText)
			}
		}
	}
	return strings.Join(words, "; ")
}

func external(name string) *miekg.Msg {
	query := ask(name, miekg.TypeAAAA).SetEdns0(MaxUDP, false)
	return query
}

// Whom the answer comes from, with two upstreams of which the first does something.
func TestForwardFailsOver(t *testing.T) {
	for _, row := range []struct {
		title string
		first miekg.HandlerFunc // nil: nobody listens
		want  string
	}{
		{"it answers", with("@ 60 IN AAAA 2001:db8::1"), "NOERROR; example.com. 60 IN AAAA 2001:db8::1"},
		{"it says there is nothing", nxdomain, "NXDOMAIN"},
		{"it is dead", nil, "NOERROR; example.com. 60 IN AAAA 2001:db8::2"},
		{"it is silent", silent, "NOERROR; example.com. 60 IN AAAA 2001:db8::2"},
		{"it refuses", refuse, "NOERROR; example.com. 60 IN AAAA 2001:db8::2"},
		{"it fails", func(w miekg.ResponseWriter, query *miekg.Msg) {
			_ = w.WriteMsg(new(miekg.Msg).SetRcode(query, miekg.RcodeServerFailure))
		}, "NOERROR; example.com. 60 IN AAAA 2001:db8::2"},
	} {
		t.Run(row.title, func(t *testing.T) {
			p := newPrivate(t)
			address := nobody
			if row.first != nil {
				address = p.upstream(first, row.first).address
			}
			f := p.forwarder(p.quick(address, p.upstream(second, with("@ 60 IN AAAA 2001:db8::2")).address), nil)
			reply, source := f.put(external("example.com."))
			equal(t, brief(reply), row.want)
			if source != SourceForward {
				t.Errorf("the source is %q", source)
			}
		})
	}
}

// A dead upstream is found out, is not waited for again, and comes back.
func TestForwardHealth(t *testing.T) {
	p := newPrivate(t)
	one, two := p.upstream(first, silent), p.upstream(second, with("@ 0 IN AAAA 2001:db8::2"))
	seen := newWatcher()
	f := p.forwarder(p.quick(one.address, two.address), seen)
	one.answer(silent)
	one.probed(silent)
	until(t, "the upstream is found dead", func() bool {
		f.put(external("example.com."))
		return !seen.works(one.address)
	})
	before := one.asked.Load()
	for range 20 {
		if reply, _ := f.put(external("example.com.")); len(reply.Answer) != 1 {
			t.Fatal(brief(reply))
		}
	}
	if waited := one.asked.Load() - before; waited != 0 {
		t.Errorf("the dead upstream was asked by %d of 20 questions", waited)
	}
	one.answer(with("@ 0 IN AAAA 2001:db8::1"))
	one.probed(nil)
	until(t, "the upstream is found alive", func() bool { return seen.works(one.address) })
	reply, _ := f.put(external("example.com."))
	equal(t, brief(reply), "NOERROR; example.com. 0 IN AAAA 2001:db8::1")
	if !seen.works(two.address) {
		t.Error("the other one is thought dead")
	}
}

func TestForwardWithoutAnswer(t *testing.T) {
	p := newPrivate(t)
	for _, row := range []struct {
		title     string
		upstreams []string
		want      string
	}{
		{"all are dead", []string{nobody}, "SERVFAIL; because no upstream resolver answered"},
		{"a private network's address", []string{"[fdaa:0:863:a7b:bea:0:1:2]:53"}, "SERVFAIL; because this host names no resolver that could be asked"},
		{"a name", []string{"resolver.example"}, "SERVFAIL; because this host names no resolver that could be asked"},
	} {
		t.Run(row.title, func(t *testing.T) {
			f := private{p.Namespace, t}.forwarder(p.quick(row.upstreams...), nil)
			reply, _ := f.put(external("example.com."))
			equal(t, brief(reply), row.want)
		})
	}
}

// A question that nobody answered is not asked again at once (RFC 9520): while
// upstreams are silent, a Machine that repeats it takes no place for it.
func TestForwardRemembersSilence(t *testing.T) {
	p := newPrivate(t)
	one := p.upstream(first, func(miekg.ResponseWriter, *miekg.Msg) {})
	config := p.quick(one.address)
	config.FailureTTL = time.Minute
	f := p.forwarder(config, nil)
	f.put(external("example.com."))
	asked := one.asked.Load()
	reply, source := f.put(external("example.com."))
	equal(t, brief(reply), "SERVFAIL; because no upstream resolver answered")
	if again := one.asked.Load() - asked; again != 0 || source != SourceCache {
		t.Errorf("the upstream was asked %d times more, and the second answer is from %q", again, source)
	}
}

// While upstreams are silent, names of ours are answered at once, on the very
// connection that waits, and whoever has closed its side still gets its answer.
func TestForwardDelaysNobody(t *testing.T) {
	p := newPrivate(t)
	gate := make(chan struct{})
	slow := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
		<-gate
		with("@ 60 IN AAAA 2001:db8::1")(w, query)
	})
	config := p.forwarding(slow.address)
	config.Timeout, config.Patience = patience, patience
	p.serve(Config{Forward: config})

	conn := p.dial("tcp6", client(acme), sixpn.DNS)
	stream := &miekg.Conn{Conn: conn}
	for id, name := range []string{"example.com.", "web.internal.", "web.flycast."} {
		query := ask(name, miekg.TypeAAAA)
		query.Id = uint16(id)
		if err := stream.WriteMsg(query); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint16{1, 2} {
		if reply := receive(t, conn); reply.Id != id || len(reply.Answer) == 0 {
			t.Fatalf("expected the answer to %d, got %v", id, reply)
		}
	}
	datagrams := p.dial("udp6", client(acme), sixpn.DNS)
	equal(t, describe(converse(t, datagrams, ask("web.internal.", miekg.TypeAAAA))), expect("NOERROR aa", webMachines...))
	close(gate)
	if reply := receive(t, conn); reply.Id != 0 || len(reply.Answer) != 1 {
		t.Errorf("the forwarded answer: %v", reply)
	}
	expectClosed(t, conn)
}

// Many who ask the same wait for one question.
func TestForwardAsksOnce(t *testing.T) {
	p := newPrivate(t)
	gate := make(chan struct{})
	one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
		<-gate
		with("@ 0 IN AAAA 2001:db8::1")(w, query)
	})
	config := p.quick(one.address)
	config.Timeout, config.Patience = patience, patience
	f := p.forwarder(config, nil)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if reply, _ := f.put(external("example.com.")); len(reply.Answer) != 1 {
				t.Error(brief(reply))
			}
		})
	}
	until(t, "all wait", func() bool { return f.shares.waiting() == 20 })
	close(gate)
	group.Wait()
	if asked := one.asked.Load(); asked != 1 {
		t.Errorf("the upstream was asked %d times", asked)
	}
}

func (s *shares) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// One tenant's questions leave room for the others'.
func TestForwardIsFair(t *testing.T) {
	p := newPrivate(t)
	one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
		if strings.HasPrefix(miekg.CanonicalName(query.Question[0].Name), "never") {
			return
		}
		with("@ 0 IN AAAA 2001:db8::1")(w, query)
	})
	const refused = "SERVFAIL; because too many questions of this Machine or its network at once"
	const answered = "NOERROR; example.com. 0 IN AAAA 2001:db8::1"
	second, third := machineOf(acme), machineOf(acme)
	second.Machine, third.Machine = 2, 3
	for _, row := range []struct {
		title   string
		limit   func(*Forward)
		waiting []sixpn.Fields // put a question that stays without an answer
		rows    map[sixpn.Fields]string
	}{
		{"of a Machine", func(c *Forward) { c.QuestionsMachine = 2 },
			[]sixpn.Fields{machineOf(acme), machineOf(acme)},
			map[sixpn.Fields]string{machineOf(acme): refused, second: answered}},
		{"of a network", func(c *Forward) { c.QuestionsNetwork = 2 },
			[]sixpn.Fields{machineOf(acme), second},
			map[sixpn.Fields]string{third: refused, machineOf(globex): answered}},
		{"of all", func(c *Forward) { c.Questions, c.QuestionsNetwork = 2, 2 },
			[]sixpn.Fields{machineOf(acme), machineOf(globex)},
			map[sixpn.Fields]string{second: refused}},
		{"in a second", func(c *Forward) { c.Rate, c.Burst = 1, 1 },
			[]sixpn.Fields{machineOf(acme)},
			map[sixpn.Fields]string{machineOf(acme): refused, second: answered}},
	} {
		t.Run(row.title, func(t *testing.T) {
			config := p.quick(one.address)
			config.Timeout, config.Patience = patience, patience
			row.limit(&config)
			f := private{p.Namespace, t}.forwarder(config, nil)
			ask := func(client sixpn.Fields, name string) string {
				query := external(name)
				reply := new(miekg.Msg).SetReply(query)
				judge(query, reply)
				reply, _ = f.resolve(t.Context(), client, query, reply)
				return brief(reply)
			}
			for i, client := range row.waiting {
				go ask(client, "never"+string(rune('a'+i))+".example.")
			}
			until(t, "they wait", func() bool { return f.shares.waiting() == len(row.waiting) })
			for client, want := range row.rows {
				equal(t, ask(client, "example.com."), want)
			}
		})
	}
}
