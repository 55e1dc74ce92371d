package dns

import miekg "github.com/miekg/dns"

// messageRows are about types and the message around the question.
var messageRows = []example{
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
