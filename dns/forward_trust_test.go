package dns

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

const truth, lie = "2001:db8::1", "2001:db8:bad::1"

// truthful is the right answer to a query, lying one with another address that is
// wrong in one more thing.
func truthful(query *miekg.Msg, address string) *miekg.Msg {
	reply := new(miekg.Msg).SetReply(query)
	reply.Answer = []miekg.RR{record("@ 60 IN AAAA " + address)}
	reply.Answer[0].Header().Name = query.Question[0].Name
	return reply
}

func lying(query *miekg.Msg, change func(*miekg.Msg)) *miekg.Msg {
	reply := truthful(query, lie)
	reply.Question = slices.Clone(reply.Question)
	change(reply)
	return reply
}

var lies = []struct {
	title  string
	change func(*miekg.Msg)
}{
	{"another id", func(m *miekg.Msg) { m.Id++ }},
	{"another name", func(m *miekg.Msg) { m.Question[0].Name = "other.example." }},
	{"another type", func(m *miekg.Msg) { m.Question[0].Qtype = miekg.TypeA }},
	{"another class", func(m *miekg.Msg) { m.Question[0].Qclass = miekg.ClassCHAOS }},
	{"no question", func(m *miekg.Msg) { m.Question = nil }},
	{"two questions", func(m *miekg.Msg) { m.Question = append(m.Question, m.Question[0]) }},
	{"a query", func(m *miekg.Msg) { m.Response = false }},
	{"another opcode", func(m *miekg.Msg) { m.Opcode = miekg.OpcodeNotify }},
}

func overUDP(w miekg.ResponseWriter) bool { return w.RemoteAddr().Network() == "udp" }

// Whatever comes before the answer and is none, the answer is what counts; if
// nothing but that comes, there is none.
func TestForwardIgnoresLies(t *testing.T) {
	for _, row := range lies {
		t.Run(row.title, func(t *testing.T) {
			p := newPrivate(t)
			one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
				_ = w.WriteMsg(lying(query, row.change))
				if strings.HasPrefix(miekg.CanonicalName(query.Question[0].Name), "true") {
					_ = w.WriteMsg(truthful(query, truth))
				}
			})
			f := p.forwarder(p.quick(one.address), nil)
			reply, _ := f.put(external("true.example."))
			equal(t, brief(reply), "NOERROR; true.example. 60 IN AAAA "+truth)
			reply, _ = f.put(external("false.example."))
			equal(t, brief(reply), "SERVFAIL; because no upstream resolver answered")
		})
	}
}

// What comes from another address or port than was asked is not even seen.
func TestForwardIgnoresStrangers(t *testing.T) {
	p := newPrivate(t)
	for _, address := range []string{"127.0.0.1:5309", "127.0.0.2:5301"} {
		stranger, err := p.ListenPacket(t.Context(), "udp4", address)
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
			wire, err := truthful(query, lie).Pack()
			if err == nil {
				_, err = stranger.WriteTo(wire, w.RemoteAddr())
			}
			if err != nil {
				t.Error(err)
			}
			_ = w.WriteMsg(truthful(query, truth))
		})
		f := p.forwarder(p.quick(one.address), nil)
		reply, _ := f.put(external("example.com."))
		equal(t, brief(reply), "NOERROR; example.com. 60 IN AAAA "+truth)
		one.stop()
	}
}

// What over UDP cannot be believed, or is not whole, is asked again over TCP.
func TestForwardOverTCP(t *testing.T) {
	for _, row := range []struct {
		title string
		udp   func(w miekg.ResponseWriter, query *miekg.Msg)
	}{
		{"truncated", func(w miekg.ResponseWriter, query *miekg.Msg) {
			reply := truthful(query, lie)
			reply.Truncated = true
			_ = w.WriteMsg(reply)
		}},
		{"cut through a record", func(w miekg.ResponseWriter, query *miekg.Msg) {
			reply := truthful(query, lie)
			reply.Truncated = true
			wire, _ := reply.Pack()
			_, _ = w.Write(wire[:len(wire)-5])
		}},
		{"the name in another case", func(w miekg.ResponseWriter, query *miekg.Msg) {
			_ = w.WriteMsg(lying(query, func(m *miekg.Msg) { m.Question[0].Name = strings.ToLower(m.Question[0].Name) }))
		}},
		{"many lies", func(w miekg.ResponseWriter, query *miekg.Msg) {
			for range 2 * strangers {
				_ = w.WriteMsg(lying(query, func(m *miekg.Msg) { m.Id++ }))
			}
		}},
		{"many messages that cannot be read", func(w miekg.ResponseWriter, _ *miekg.Msg) {
			for range 2 * strangers {
				_, _ = w.Write([]byte("no message"))
			}
		}},
	} {
		t.Run(row.title, func(t *testing.T) {
			p := newPrivate(t)
			one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
				if overUDP(w) {
					row.udp(w, query)
					return
				}
				_ = w.WriteMsg(truthful(query, truth))
			})
			f := p.forwarder(p.quick(one.address), nil)
			name := strings.Repeat("long-enough-for-both-cases.", 3) + "example."
			reply, _ := f.put(external(name))
			equal(t, brief(reply), "NOERROR; "+name+" 60 IN AAAA "+truth)
		})
	}
}

// Each question has a port, an id and a spelling that nobody can foresee.
func TestForwardIsHardToForge(t *testing.T) {
	const questions = 64
	p := newPrivate(t)
	ports, ids, spellings := map[string]bool{}, map[uint16]bool{}, map[string]bool{}
	var mu sync.Mutex
	one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
		mu.Lock()
		defer mu.Unlock()
		ports[w.RemoteAddr().String()], ids[query.Id], spellings[query.Question[0].Name] = true, true, true
		with("@ 0 IN AAAA 2001:db8::1")(w, query)
	})
	f := p.forwarder(p.quick(one.address), nil)
	for range questions {
		if reply, _ := f.put(external("a-name-with-many-letters.example.")); len(reply.Answer) != 1 {
			t.Fatal(brief(reply))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for what, distinct := range map[string]int{"ports": len(ports), "ids": len(ids), "spellings": len(spellings)} {
		if distinct < questions*9/10 {
			t.Errorf("only %d %s in %d questions", distinct, what, questions)
		}
	}
}

// What gets out of a query, and what of the answer gets back.
func TestForwardPasses(t *testing.T) {
	p := newPrivate(t)
	one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
		reply := truthful(query, truth)
		reply.AuthenticatedData = true
		if opt := query.IsEdns0(); opt != nil {
			reply.SetEdns0(MaxUDP, opt.Do()).IsEdns0().Option = []miekg.EDNS0{
				&miekg.EDNS0_EDE{InfoCode: miekg.ExtendedErrorCodeStaleAnswer, ExtraText: "old"},
				&miekg.EDNS0_NSID{Code: miekg.EDNS0NSID, Nsid: "aa"},
			}
		}
		_ = w.WriteMsg(reply)
	})
	f := p.forwarder(p.quick(one.address), nil)
	for _, row := range []struct {
		title           string
		change          func(*miekg.Msg)
		do, cd, ad, opt bool // bits of question and reply; opt: the reply has an OPT record
	}{
		{title: "plain", change: func(*miekg.Msg) {}},
		{title: "EDNS", change: func(m *miekg.Msg) { m.SetEdns0(4096, false) }, opt: true},
		{title: "DO", change: func(m *miekg.Msg) { m.SetEdns0(4096, true) }, opt: true, do: true, ad: true},
		{title: "CD", change: func(m *miekg.Msg) { m.CheckingDisabled = true }, cd: true},
		{title: "AD", change: func(m *miekg.Msg) { m.AuthenticatedData = true }, ad: true},
		{title: "options of its own", change: func(m *miekg.Msg) {
			m.SetEdns0(4096, false).IsEdns0().Option = []miekg.EDNS0{
				&miekg.EDNS0_SUBNET{Code: miekg.EDNS0SUBNET, Family: 2, SourceNetmask: 56, Address: net.ParseIP("fdaa:0:863::")},
				&miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: "0011223344556677"},
				&miekg.EDNS0_LOCAL{Code: 65001, Data: []byte("x")},
			}
		}, opt: true},
	} {
		t.Run(row.title, func(t *testing.T) {
			query := ask(strings.ReplaceAll(row.title, " ", "-")+".example.", miekg.TypeAAAA)
			row.change(query)
			reply, _ := f.put(overWire(t, query))
			all := one.questions()
			put := all[len(all)-1]
			opt := put.IsEdns0()
			if opt == nil || len(opt.Option) != 0 || opt.UDPSize() != MaxUDP || opt.Do() != row.do || put.CheckingDisabled != row.cd {
				t.Errorf("the upstream was asked\n%v", put)
			}
			if !put.RecursionDesired || len(put.Question) != 1 || len(put.Answer)+len(put.Ns) != 0 || len(put.Extra) != 1 {
				t.Errorf("the upstream was asked\n%v", put)
			}
			got := reply.IsEdns0()
			if (got != nil) != row.opt || reply.AuthenticatedData != row.ad || reply.CheckingDisabled != row.cd || reply.Authoritative {
				t.Errorf("the reply is\n%v", reply)
			}
			if got != nil && (len(got.Option) != 1 || got.Option[0].Option() != miekg.EDNS0EDE || got.Do() != row.do) {
				t.Errorf("the options of the reply are %v", got)
			}
		})
	}
}

// A server that knows no EDNS is asked without.
func TestForwardWithoutEDNS(t *testing.T) {
	for _, rcode := range []int{miekg.RcodeFormatError, miekg.RcodeNotImplemented} {
		p := newPrivate(t)
		one := p.upstream(first, func(w miekg.ResponseWriter, query *miekg.Msg) {
			if query.IsEdns0() != nil {
				_ = w.WriteMsg(new(miekg.Msg).SetRcode(query, rcode))
				return
			}
			_ = w.WriteMsg(truthful(query, truth))
		})
		reply, _ := p.forwarder(p.quick(one.address), nil).put(external("example.com."))
		equal(t, brief(reply), "NOERROR; example.com. 60 IN AAAA "+truth)
	}
}

// An upstream that asks this resolver in turn is found out, and is asked again
// once it does not.
func TestForwardFindsLoops(t *testing.T) {
	p := newPrivate(t)
	one := p.upstream(first, refuse)
	seen := newWatcher()
	config := p.quick(one.address)
	config.FailureTTL = time.Millisecond
	f := p.forwarder(config, seen)
	// The way back: it puts what it is asked to this resolver, from some Machine.
	one.probed(func(w miekg.ResponseWriter, query *miekg.Msg) {
		reply := new(miekg.Msg).SetReply(query)
		judge(query, reply)
		reply, _ = f.resolve(context.Background(), machineOf(globex), query, reply)
		_ = w.WriteMsg(reply)
	})
	one.answer(with("@ 0 IN AAAA 2001:db8::1"))
	until(t, "the loop is found", func() bool {
		reply, _ := f.put(external("example.com."))
		return brief(reply) == "SERVFAIL; because the upstream resolver asks this one"
	})
	if seen.works(one.address) {
		t.Error("the observer was told that it works")
	}
	one.probed(nil)
	until(t, "the end of the loop is found", func() bool {
		reply, _ := f.put(external("example.com."))
		return brief(reply) == "NOERROR; example.com. 0 IN AAAA 2001:db8::1"
	})
}
