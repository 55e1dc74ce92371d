package dns

import (
	"fmt"
	"slices"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// The observer is told of every answer, by whatever way it is asked for.
func TestServerTellsItsObserver(t *testing.T) {
	p := newPrivate(t)
	one := p.upstream(first, with("@ 60 IN AAAA 2001:db8::1"))
	seen := newWatcher()
	p.serve(Config{Observer: seen, Forward: p.forwarding(one.address)})
	twoQuestions := ask("web.internal.", miekg.TypeAAAA)
	twoQuestions.Question = append(twoQuestions.Question, twoQuestions.Question[0])
	var want []string
	for _, row := range []struct {
		transport string
		query     *miekg.Msg
		want      string
	}{
		{"udp", ask("web.internal.", miekg.TypeAAAA), "AAAA NOERROR internal"},
		{"tcp", ask("nope.internal.", miekg.TypeTXT), "TXT NXDOMAIN internal"},
		{"udp", ask("web.flycast.", miekg.TypeA), "A NOERROR flycast"},
		{"tcp", ask(arpa("fdaa::3"), miekg.TypePTR), "PTR NOERROR reverse"},
		{"udp", ask("localhost.", miekg.TypeAAAA), "AAAA NOERROR local"},
		{"udp", twoQuestions, "AAAA FORMERR refused"},
		{"udp", ask("example.com.", miekg.TypeAAAA), "AAAA NOERROR forward"},
		{"tcp", ask("example.com.", miekg.TypeAAAA), "AAAA NOERROR cache"},
		{"tcp", ask("other.example.com.", miekg.TypeAAAA), "AAAA NOERROR forward"},
	} {
		converse(t, p.dial(row.transport+"6", client(acme), sixpn.DNS), row.query)
		want = append(want, row.want+" "+row.transport)
	}
	told := func() (all []string) {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		for _, a := range seen.answered {
			if a.Duration <= 0 || a.Duration > patience {
				t.Errorf("it took %v", a.Duration)
			}
			all = append(all, fmt.Sprint(miekg.Type(a.Type), " ", miekg.RcodeToString[a.Rcode], " ", a.Source, " ", a.Transport))
		}
		return all
	}
	// It is told after the client.
	until(t, "all answers are told of", func() bool { return len(told()) >= len(want) })
	got := told()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("told of\n%q\nexpected\n%q", got, want)
	}
	until(t, "two exchanges and the probe are told of", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.exchanged) == 3
	})
	for _, e := range seen.exchanged {
		if e.Upstream != one.address || e.Transport != "udp" || !e.OK || e.Duration <= 0 {
			t.Errorf("told of an exchange %+v", e)
		}
	}
	if !seen.works(one.address) {
		t.Error("told that the upstream does not work")
	}
}

// Resolve is the same without a socket, for whatever network is said.
func TestServerResolves(t *testing.T) {
	p := newPrivate(t)
	snapshot := world()
	server := NewServer(Config{
		Snapshot: func() *state.Snapshot { return snapshot }, Distances: func() *state.Distances { return fromHere }, Log: quiet,
		Forward: p.forwarding(p.upstream(first, refuse).address),
	})
	defer server.forward.close()
	for _, row := range table {
		row, query := row.defaults()
		query = overWire(t, query)
		reply := server.Resolve(t.Context(), row.asker, query)
		if got := describe(reply); got != row.want {
			t.Errorf("%s: got\n%s\nwant\n%s", row.title, got, row.want)
		}
		if !reply.RecursionAvailable {
			t.Errorf("%s: the reply does not say that it resolves other names", row.title)
		}
	}
	big := NewServer(Config{Snapshot: func() *state.Snapshot { return crowd(100) }, Distances: func() *state.Distances { return fromHere }, Log: quiet, Forward: p.forwarding(nobody)})
	defer big.forward.close()
	if reply := big.Resolve(t.Context(), acme, ask("web.internal.", miekg.TypeAAAA)); len(reply.Answer) != 100 || reply.Truncated {
		t.Errorf("%d records, truncation bit %v", len(reply.Answer), reply.Truncated)
	}
}
