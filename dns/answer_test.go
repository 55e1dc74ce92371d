package dns

import (
	"slices"
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

var table = slices.Concat(nameRows, listRows, reverseRows, localRows, messageRows)

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
			query = overWire(t, query)
			reply := NewView(world(), fromHere).Answer(row.asker, query)
			equal(t, describe(reply), row.want)

			if !reply.Response || reply.Id != query.Id || reply.RecursionDesired != query.RecursionDesired && query.Opcode == miekg.OpcodeQuery {
				t.Errorf("the header does not repeat the query's: %v", reply.MsgHdr)
			}
			if len(query.Question) == 1 && (len(reply.Question) != 1 || reply.Question[0] != query.Question[0]) {
				t.Errorf("the question came back as %v", reply.Question)
			}
			if options := reply.IsEdns0(); (options != nil) != (query.IsEdns0() != nil) {
				t.Errorf("OPT record in the reply: %v, in the query: %v", options, query.IsEdns0())
			} else if options != nil && (options.UDPSize() != MaxUDP || options.Version() != 0 || len(options.Option) != 0) {
				t.Errorf("OPT record: %v", options)
			}
		})
	}
}

// overWire is a message as its receiver reads it.
func overWire(t *testing.T, message *miekg.Msg) *miekg.Msg {
	t.Helper()
	wire, err := message.Pack()
	if err != nil {
		t.Fatal(err)
	}
	read := new(miekg.Msg)
	if err := read.Unpack(wire); err != nil {
		t.Fatal(err)
	}
	return read
}

func TestAnswerIgnoresReplies(t *testing.T) {
	query := ask("web.internal.", miekg.TypeAAAA)
	query.Response = true
	equal(t, describe(NewView(world(), fromHere).Answer(acme, query)), "silence")
}

func TestAnswerCopiesTheDNSSECBit(t *testing.T) {
	query := ask("web.internal.", miekg.TypeAAAA).SetEdns0(MaxUDP, true)
	if reply := NewView(world(), fromHere).Answer(acme, query); !reply.IsEdns0().Do() {
		t.Error("the DO bit of the query is not in the reply (RFC 3225)")
	}
}

func TestAnswerShuffles(t *testing.T) {
	const machines = 5
	view := NewView(crowd(machines), fromHere)
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
