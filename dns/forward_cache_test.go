package dns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// What is kept, and for how long: after the first answer the upstream has another
// one, and either the first is given again or the new one.
func TestForwardKeeps(t *testing.T) {
	reply := func(rcode int, ns string, answers ...string) miekg.HandlerFunc {
		return func(w miekg.ResponseWriter, query *miekg.Msg) {
			m := new(miekg.Msg).SetRcode(query, rcode)
			for _, text := range answers {
				rr := record(text)
				if rr.Header().Name == "@." {
					rr.Header().Name = query.Question[0].Name
				}
				m.Answer = append(m.Answer, rr)
			}
			if ns != "" {
				m.Ns = []miekg.RR{record(ns)}
			}
			_ = w.WriteMsg(m)
		}
	}
	const soa = "example. 300 IN SOA ns.example. root.example. 1 1 1 1 "
	for _, row := range []struct {
		title  string
		bounds func(*Forward)
		answer miekg.HandlerFunc
		ttl    uint32 // of the first record that came
		kept   time.Duration
	}{
		{title: "an answer", answer: reply(0, "", "@ 60 IN AAAA 2001:db8::1"), ttl: 60, kept: 60 * time.Second},
		{title: "the shortest of two", answer: reply(0, "", "@ 60 IN CNAME a.example.", "a.example. 30 IN AAAA 2001:db8::1"), ttl: 60, kept: 30 * time.Second},
		{title: "an answer for now", answer: reply(0, "", "@ 0 IN AAAA 2001:db8::1"), ttl: 0},
		{title: "a TTL with the highest bit", answer: reply(0, "", "@ 2147483648 IN AAAA 2001:db8::1"), ttl: 0},
		{title: "the least", bounds: func(c *Forward) { c.MinTTL = 20 * time.Second }, answer: reply(0, "", "@ 1 IN AAAA 2001:db8::1"), ttl: 20, kept: 20 * time.Second},
		{title: "the most", answer: reply(0, "", "@ 86400 IN AAAA 2001:db8::1"), ttl: 3600, kept: time.Hour},
		{title: "no such name", answer: reply(miekg.RcodeNameError, soa+"200"), ttl: 200, kept: 200 * time.Second},
		{title: "no such name, the SOA's own TTL", answer: reply(miekg.RcodeNameError, soa+"900"), ttl: 300, kept: 300 * time.Second},
		{title: "nothing of the type", answer: reply(0, soa+"200"), ttl: 200, kept: 200 * time.Second},
		{title: "an alias of nothing", answer: reply(0, soa+"200", "@ 60 IN CNAME a.example."), ttl: 60, kept: 60 * time.Second},
		{title: "the most for nothing", bounds: func(c *Forward) { c.MaxNegativeTTL = 100 * time.Second }, answer: reply(miekg.RcodeNameError, soa+"200"), ttl: 200, kept: 100 * time.Second},
		{title: "no such name, without a SOA", answer: reply(miekg.RcodeNameError, "")},
		{title: "a failure", bounds: func(c *Forward) { c.FailureTTL = 10 * time.Second }, answer: reply(miekg.RcodeServerFailure, ""), kept: 10 * time.Second},
	} {
		t.Run(row.title, func(t *testing.T) {
			p := newPrivate(t)
			one := p.upstream(first, row.answer)
			config := p.quick(one.address)
			if row.bounds != nil {
				row.bounds(&config)
			}
			f := p.forwarder(config, nil)
			earlier, _ := f.put(external("example.com."))
			if records := append(earlier.Answer, earlier.Ns...); len(records) > 0 && records[0].Header().Ttl != row.ttl {
				t.Errorf("the TTL is %d, expected %d", records[0].Header().Ttl, row.ttl)
			}
			one.answer(with("@ 0 IN AAAA 2001:db8::ffff"))
			// Another case is the same question.
			later, source := f.put(external("eXample.com."))
			if again := source == SourceCache; again != (row.kept > 0) {
				t.Fatalf("the second answer comes from %q: %v", source, later)
			}
			if row.kept == 0 {
				return
			}
			if one.asked.Load() != 1 || later.Rcode != earlier.Rcode {
				t.Errorf("the upstream was asked %d times, the second answer is %v", one.asked.Load(), later)
			}
			if len(later.Answer) > 0 && later.Answer[0].Header().Name != "eXample.com." {
				t.Errorf("the asker's spelling is not in %v", later.Answer[0])
			}
			entry, ok := f.cache.kept.GetEntryQuietly(keyOf(external("example.com.")))
			if left := entry.ExpiresAfter(); !ok || left > row.kept || left < row.kept-patience {
				t.Errorf("it is kept for %v, expected %v", left, row.kept)
			}
		})
	}
}

// What was kept grows old in the asker's sight, and is asked again when it is.
func TestForwardForgets(t *testing.T) {
	p := newPrivate(t)
	one := p.upstream(first, with("@ 2 IN AAAA 2001:db8::1"))
	f := p.forwarder(p.quick(one.address), nil)
	ttls := make(map[uint32]bool)
	until(t, "the answer is asked for again", func() bool {
		reply, _ := f.put(external("example.com."))
		ttls[reply.Answer[0].Header().Ttl] = true
		return one.asked.Load() == 2
	})
	if !ttls[2] || !ttls[1] || len(ttls) > 3 {
		t.Errorf("the TTLs were %v", ttls)
	}
}

// Two who differ in what they want to know of signatures do not share an answer.
func TestForwardKeepsApart(t *testing.T) {
	p := newPrivate(t)
	one := p.upstream(first, with("@ 60 IN AAAA 2001:db8::1", "@ 60 IN A 192.0.2.1"))
	f := p.forwarder(p.quick(one.address), nil)
	for i, change := range []func(*miekg.Msg){
		func(*miekg.Msg) {},
		func(m *miekg.Msg) { m.IsEdns0().SetDo() },
		func(m *miekg.Msg) { m.CheckingDisabled = true },
		func(m *miekg.Msg) { m.Question[0].Qtype = miekg.TypeA },
	} {
		query := external("example.com.")
		change(query)
		for range 2 {
			f.put(query)
		}
		if asked := one.asked.Load(); asked != int64(i+1) {
			t.Errorf("after query %d the upstream was asked %d times", i, asked)
		}
	}
}

// Nobody learns from the cache what others have asked, unless by asking.
func TestForwardTellsNothingUnasked(t *testing.T) {
	p := newPrivate(t)
	f := p.forwarder(p.quick(p.upstream(first, with("@ 60 IN AAAA 2001:db8::1")).address), nil)
	f.put(external("example.com."))
	query := external("example.com.")
	query.RecursionDesired = false
	reply, source := f.put(query)
	if reply.Rcode != miekg.RcodeRefused || len(reply.Answer) != 0 || source != SourceRefused {
		t.Errorf("the reply is %v from %q", reply, source)
	}
}

// The resolvers of the host, as its file says from time to time.
func TestForwardReadsResolvConf(t *testing.T) {
	p := newPrivate(t)
	p.upstream("127.0.0.1:53", with("@ 0 IN AAAA 2001:db8::1"))
	p.upstream("127.0.0.2:53", with("@ 0 IN AAAA 2001:db8::2"))
	seen := newWatcher()
	config := p.quick()
	config.Upstreams = nil
	config.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	f := p.forwarder(config, seen)

	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(config.ResolvConf+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(config.ResolvConf+".new", config.ResolvConf); err != nil {
			t.Fatal(err)
		}
	}
	answered := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			reply, _ := f.put(external("example.com."))
			return strings.Contains(brief(reply), want)
		})
	}
	answered("names no resolver")
	write("search example.com\nnameserver 127.0.0.1\n")
	answered("2001:db8::1")
	write("nameserver fdaa::3\nnameserver 127.0.0.2\nnameserver 127.0.0.1\n")
	answered("2001:db8::2")
	if err := os.Remove(config.ResolvConf); err != nil {
		t.Fatal(err)
	}
	answered("2001:db8::2") // as before
	write("nameserver 127.0.0.2\n")
	until(t, "the observer is told who is asked no more", func() bool {
		f.put(external("example.com."))
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.forgotten) == 1 && seen.forgotten[0] == "127.0.0.1:53"
	})
	if seen.works("[fdaa::3]:53") {
		t.Error("this resolver is one of its own upstreams")
	}
}

func TestParseUpstream(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"192.0.2.1:5353", "192.0.2.1:5353"},
		{"192.0.2.1", "192.0.2.1:53"},
		{"2001:db8::1", "[2001:db8::1]:53"},
		{"[2001:db8::1]:5353", "[2001:db8::1]:5353"},
		{"fe80::1%eth0", "[fe80::1%eth0]:53"},
		{"::ffff:192.0.2.1", "192.0.2.1:53"},
		{"192.0.2.1:0", ""},
		{"fdaa::3", ""},
		{"[fdaa:0:863::3]:53", ""},
		{"fdaa::3%eth0", ""},
		{"dns.example", ""},
		{"", ""},
	} {
		got, err := ParseUpstream(row.text)
		if (err == nil) != (row.want != "") || err == nil && got.String() != row.want {
			t.Errorf("%q is read as %v, %v; expected %q", row.text, got, err, row.want)
		}
		if err != nil && !strings.Contains(err.Error(), row.text) {
			t.Errorf("the error does not name what is wrong: %v", err)
		}
	}
}
