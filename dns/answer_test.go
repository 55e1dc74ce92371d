package dns

import (
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

// example changes one thing of "a Machine of acme asks for the AAAA records of
// web.internal".
type example struct {
	title  string
	name   string
	rrtype uint16
	asker  sixpn.Network
	change func(*miekg.Msg) // of the message
	dig    []string         // options that make dig send the changed message; nil: it cannot
	want   string
}

var (
	webMachines = []string{
		"web.internal. AAAA fdaa:0:863:a7b:bea:0:1:2",
		"web.internal. AAAA fdaa:0:863:a7b:bea:0:2:2",
	}
	missing = expect("NXDOMAIN aa", nothing("internal."))
	empty   = expect("NOERROR aa", nothing("internal."))
)

var table = []example{
	// Names.
	{title: "an app: its started Machines only", want: expect("NOERROR aa", webMachines...)},
	{title: "another case", name: "wEb.InterNAL.", want: expect("NOERROR aa",
		"wEb.InterNAL. AAAA fdaa:0:863:a7b:bea:0:1:2", "wEb.InterNAL. AAAA fdaa:0:863:a7b:bea:0:2:2")},
	{title: "an app of another network", asker: globex, want: missing},
	{title: "that app, asked from there", name: "db.internal.", asker: globex,
		want: expect("NOERROR aa", "db.internal. AAAA fdaa:0:22b7:a7b:bea:0:8:2")},
	{title: "an app reached only by an allocation", name: "db.internal.", want: missing},
	{title: "an app without a started Machine", name: "api.internal.", want: empty},
	{title: "no such app", name: "nope.internal.", want: missing},
	{title: "a name below an app", name: "a.b.web.internal.", want: missing},
	{title: "an escaped dot is no dot", name: `web\.internal.`, want: expect("REFUSED")},
	{title: "an escaped dot in a label", name: `x\.web.internal.`, want: missing},
	{title: "the zone", name: "internal.", want: empty},
	{title: "Flycast", name: "web.flycast.", want: expect("NOERROR aa", "web.flycast. AAAA fdaa:0:863:0:1::3")},
	{title: "Flycast across networks", name: "db.flycast.",
		want: expect("NOERROR aa", "db.flycast. AAAA fdaa:0:863:0:1::7")},
	{title: "Flycast in the app's own network", name: "db.flycast.", asker: globex,
		want: expect("NOERROR aa", "db.flycast. AAAA fdaa:0:22b7:0:1::1")},
	{title: "Flycast of another network", name: "web.flycast.", asker: globex,
		want: expect("NXDOMAIN aa", nothing("flycast."))},
	{title: "Flycast without an address", name: "api.flycast.", want: expect("NXDOMAIN aa", nothing("flycast."))},
	{title: "the list is not under the other zone", name: "_apps.flycast.",
		want: expect("NXDOMAIN aa", nothing("flycast."))},
	{title: "the root", name: ".", want: expect("REFUSED")},
	{title: "another domain", name: "example.com.", want: expect("REFUSED")},
	{title: "a domain that only ends alike", name: "web.notinternal.", want: expect("REFUSED")},

	// Types.
	{title: "A", rrtype: miekg.TypeA, want: empty},
	{title: "TXT of an app", rrtype: miekg.TypeTXT, want: empty},
	{title: "a type of the future", rrtype: 4242, want: empty},
	{title: "A of no such app", name: "nope.internal.", rrtype: miekg.TypeA, want: missing},
	{title: "A of another network's app", asker: globex, rrtype: miekg.TypeA, want: missing},
	{title: "A of Flycast", name: "web.flycast.", rrtype: miekg.TypeA,
		want: expect("NOERROR aa", nothing("flycast."))},
	{title: "ANY", rrtype: miekg.TypeANY, want: expect("NOERROR aa", webMachines...)},
	{title: "SOA of the zone", name: "Internal.", rrtype: miekg.TypeSOA,
		want: expect("NOERROR aa", "Internal. SOA _dns.internal. hostmaster.internal. 42 5 5 5 5")},
	{title: "SOA of a name", rrtype: miekg.TypeSOA, want: empty},
	{title: "apps", name: "_apps.internal.", rrtype: miekg.TypeTXT,
		want: expect("NOERROR aa", `_apps.internal. TXT "web"`)},
	{title: "apps of the other network", name: "_apps.internal.", rrtype: miekg.TypeTXT, asker: globex,
		want: expect("NOERROR aa", `_apps.internal. TXT "db"`)},
	{title: "apps of an empty network", name: "_apps.internal.", rrtype: miekg.TypeTXT, asker: vacant, want: empty},
	{title: "AAAA of the apps", name: "_apps.internal.", want: empty},
	{title: "AXFR", name: "internal.", rrtype: miekg.TypeAXFR, want: expect("REFUSED")},
	{title: "MAILB", rrtype: miekg.TypeMAILB, want: expect("NOTIMP")},
	{title: "OPT as a type", rrtype: miekg.TypeOPT, want: expect("FORMERR")},

	// Messages.
	{title: "another class", change: func(m *miekg.Msg) { m.Question[0].Qclass = miekg.ClassCHAOS },
		dig: []string{"-c", "CH"}, want: expect("REFUSED")},
	{title: "no recursion asked", change: func(m *miekg.Msg) { m.RecursionDesired = false },
		dig: []string{"+norecurse"}, want: expect("NOERROR aa", webMachines...)},
	{title: "another opcode", change: func(m *miekg.Msg) { m.Opcode = miekg.OpcodeStatus },
		dig: []string{"+opcode=status"}, want: expect("NOTIMP")},
	{title: "an update", change: func(m *miekg.Msg) { m.Opcode = miekg.OpcodeUpdate },
		dig: []string{"+opcode=update"}, want: expect("NOTIMP")},
	{title: "an opcode of the future", change: func(m *miekg.Msg) { m.Opcode = 15 },
		dig: []string{"+opcode=15"}, want: expect("NOTIMP")},
	{title: "no question", change: func(m *miekg.Msg) { m.Question = nil }, want: expect("FORMERR")},
	{title: "two questions", change: func(m *miekg.Msg) { m.Question = append(m.Question, m.Question[0]) },
		want: expect("FORMERR")},
	{title: "EDNS", change: func(m *miekg.Msg) { m.SetEdns0(4096, false) },
		dig: []string{"+edns=0", "+bufsize=4096"}, want: expect("NOERROR aa", webMachines...)},
	{title: "an EDNS version of the future", change: func(m *miekg.Msg) { m.SetEdns0(4096, false).IsEdns0().SetVersion(1) },
		dig: []string{"+edns=1", "+noednsnegotiation"}, want: expect("BADVERS")},
	{title: "an EDNS option of the future", change: func(m *miekg.Msg) {
		m.SetEdns0(4096, false).IsEdns0().Option = []miekg.EDNS0{&miekg.EDNS0_LOCAL{Code: 65001, Data: []byte("x")}}
	}, dig: []string{"+ednsopt=65001:78"}, want: expect("NOERROR aa", webMachines...)},
	{title: "EDNS twice", change: func(m *miekg.Msg) { m.SetEdns0(4096, false).SetEdns0(4096, false) },
		want: expect("FORMERR")},
	{title: "EDNS of a name", change: func(m *miekg.Msg) { m.SetEdns0(4096, false).IsEdns0().Hdr.Name = "web." },
		want: expect("FORMERR")},
}

// defaults is the row with what it does not change filled in, and its query.
func (r example) defaults() (example, *miekg.Msg) {
	setDefault(&r.name, "web.internal.")
	setDefault(&r.rrtype, miekg.TypeAAAA)
	setDefault(&r.asker, acme)
	query := ask(r.name, r.rrtype)
	if r.change != nil {
		r.change(query)
	}
	return r, query
}

func TestAnswer(t *testing.T) {
	for _, row := range table {
		t.Run(row.title, func(t *testing.T) {
			row, query := row.defaults()
			reply := NewView(world(), here).Answer(row.asker, query)
			equal(t, describe(reply), row.want)

			if !reply.Response || reply.Id != query.Id || reply.RecursionDesired != query.RecursionDesired && query.Opcode == miekg.OpcodeQuery {
				t.Errorf("the header does not repeat the query's: %v", reply.MsgHdr)
			}
			if len(query.Question) == 1 && (len(reply.Question) != 1 || reply.Question[0] != query.Question[0]) {
				t.Errorf("the question came back as %v", reply.Question)
			}
			if options := reply.IsEdns0(); (options != nil) != (query.IsEdns0() != nil) {
				t.Errorf("OPT record in the reply: %v, in the query: %v", options, query.IsEdns0())
			} else if options != nil && (options.UDPSize() != maxUDP || options.Version() != 0 || len(options.Option) != 0) {
				t.Errorf("OPT record: %v", options)
			}
		})
	}
}

func TestAnswerIgnoresReplies(t *testing.T) {
	query := ask("web.internal.", miekg.TypeAAAA)
	query.Response = true
	equal(t, describe(NewView(world(), here).Answer(acme, query)), "silence")
}

func TestAnswerCopiesTheDNSSECBit(t *testing.T) {
	query := ask("web.internal.", miekg.TypeAAAA).SetEdns0(maxUDP, true)
	if reply := NewView(world(), here).Answer(acme, query); !reply.IsEdns0().Do() {
		t.Error("the DO bit of the query is not in the reply (RFC 3225)")
	}
}

func TestAnswerShuffles(t *testing.T) {
	const machines = 5
	view := NewView(crowd(machines), here)
	first := make(map[string]int)
	for range 1000 {
		reply := view.Answer(acme, ask("web.internal.", miekg.TypeAAAA))
		first[reply.Answer[0].String()]++
	}
	if len(first) != machines {
		t.Fatalf("%d of %d Machines ever came first: %v", len(first), machines, first)
	}
	for record, count := range first {
		if count < 100 { // 200 expected, standard deviation 13
			t.Errorf("%s came first %d times of 1000", record, count)
		}
	}
}
