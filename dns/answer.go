// Package dns answers the names of a private network: what stands under
// .internal and .flycast, and the names of its addresses. Such an answer is a pure
// function of the state, of the network that asks and of the question. All other
// names are asked of the host's resolvers. The server around it only moves
// messages.
package dns

import (
	"math/rand/v2"
	"net"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

const (
	// ttl of every record, seconds: Machines come and go.
	ttl = 5
	// MaxUDP is the largest message sent over UDP, bytes: what passes every path
	// without a fragment (DNS Flag Day 2020).
	MaxUDP = 1232
	// address6 is what one more AAAA record takes in a message at least, bytes.
	address6 = 2 + 10 + 16
)

// loopback is what localhost holds (RFC 6761), and every name below it.
var loopback = records{addresses: []net.IP{net.IPv6loopback}, addresses4: []net.IP{net.IPv4(127, 0, 0, 1).To4()}}

// Answer is the reply to query as a client in network asker gets it, before it
// is cut to what the transport takes. It is nil when the message deserves none,
// being a reply itself. A name that is none of ours is refused. Addresses come in
// a new random order each time.
func (v *View) Answer(asker sixpn.Network, query *miekg.Msg) *miekg.Msg {
	reply, source := v.answer(asker, query, miekg.MaxMsgSize)
	if source == SourceForward {
		reply.Rcode = miekg.RcodeRefused
	}
	return reply
}

// answer is Answer for a transport that takes size bytes: it need not hold more
// addresses than one too many. source is SourceForward for a question that is
// somebody else's to answer; reply then has no more than a header.
func (v *View) answer(asker sixpn.Network, query *miekg.Msg, size int) (reply *miekg.Msg, source Source) {
	if query.Response {
		return nil, SourceRefused
	}
	reply = new(miekg.Msg).SetReply(query)
	if reply.Rcode = judge(query, reply); reply.Rcode != miekg.RcodeSuccess {
		return reply, SourceRefused
	}

	asked := query.Question[0]
	f := v.find(asker, asked.Name)
	if f.source == "" {
		return reply, SourceForward
	}
	reply.Authoritative = true
	if f.exists {
		reply.Answer, reply.Truncated = resources(asked, &f.have, size/address6+1)
		if wants(asked, miekg.TypeSOA) && miekg.CanonicalName(asked.Name) == f.zone {
			soa := startOfAuthority(f.zone, v.snapshot.Revision)
			soa.Hdr.Name = asked.Name
			reply.Answer = append(reply.Answer, soa)
		}
	} else {
		reply.Rcode = miekg.RcodeNameError
	}
	if len(reply.Answer) == 0 {
		reply.Ns = []miekg.RR{startOfAuthority(f.zone, v.snapshot.Revision)}
	}
	return reply, f.source
}

// judge says whether the message is one question that can be answered at all,
// and gives the reply an OPT record if the query had one (RFC 6891).
func judge(query, reply *miekg.Msg) (rcode int) {
	var options []*miekg.OPT
	for _, rr := range query.Extra {
		if opt, ok := rr.(*miekg.OPT); ok {
			options = append(options, opt)
		}
	}
	if len(options) > 0 {
		reply.SetEdns0(MaxUDP, options[0].Do())
		if len(options) > 1 || options[0].Hdr.Name != "." {
			return miekg.RcodeFormatError
		}
		if options[0].Version() != 0 {
			return miekg.RcodeBadVers
		}
	}
	if query.Opcode != miekg.OpcodeQuery {
		return miekg.RcodeNotImplemented
	}
	if len(query.Question) != 1 { // RFC 9619
		reply.Question = nil
		return miekg.RcodeFormatError
	}
	if query.Question[0].Qclass != miekg.ClassINET {
		return miekg.RcodeRefused
	}
	switch query.Question[0].Qtype {
	case miekg.TypeAXFR, miekg.TypeIXFR:
		return miekg.RcodeRefused
	case miekg.TypeMAILA, miekg.TypeMAILB, miekg.TypeTKEY:
		return miekg.RcodeNotImplemented
	case miekg.TypeOPT, miekg.TypeTSIG, miekg.TypeNone:
		return miekg.RcodeFormatError
	}
	return miekg.RcodeSuccess
}

func wants(asked miekg.Question, rrtype uint16) bool {
	return asked.Qtype == rrtype || asked.Qtype == miekg.TypeANY
}

// resources turns what a name holds into records, at most limit addresses among
// them. Their owner is the name as the asker wrote it, since some resolvers use
// the case as a secret. truncated is true when no message could hold all of it.
func resources(asked miekg.Question, have *records, limit int) (all []miekg.RR, truncated bool) {
	header := func(rrtype uint16) miekg.RR_Header {
		return miekg.RR_Header{Name: asked.Name, Rrtype: rrtype, Class: miekg.ClassINET, Ttl: ttl}
	}
	if wants(asked, miekg.TypeAAAA) && len(have.addresses) > 0 {
		chosen := choose(have, limit)
		records := make([]miekg.AAAA, len(chosen))
		all = make([]miekg.RR, len(chosen), len(chosen)+1)
		for i, address := range chosen {
			records[i] = miekg.AAAA{Hdr: header(miekg.TypeAAAA), AAAA: address}
			all[i] = &records[i]
		}
	}
	if wants(asked, miekg.TypeA) {
		for _, address := range have.addresses4 {
			all = append(all, &miekg.A{Hdr: header(miekg.TypeA), A: address})
		}
	}
	if wants(asked, miekg.TypeTXT) && len(have.text.strings) > 0 {
		all = append(all, &miekg.TXT{Hdr: header(miekg.TypeTXT), Txt: have.text.strings})
		truncated = have.text.cut
	}
	if wants(asked, miekg.TypePTR) {
		for _, name := range have.pointers {
			all = append(all, &miekg.PTR{Hdr: header(miekg.TypePTR), Ptr: name})
		}
	}
	return all, truncated
}

// choose puts addresses in a random order, unless theirs says something; of more
// than limit it takes a random part.
func choose(have *records, limit int) []net.IP {
	count := len(have.addresses)
	limit = min(limit, count)
	if have.ordered || count == 1 {
		return have.addresses[:limit]
	}
	chosen := make([]net.IP, limit)
	if limit < count/2 {
		// Few of many: drawn one by one, again if one was taken already.
		taken := make([]uint64, count/64+1)
		for i := 0; i < limit; {
			n := rand.IntN(count)
			if bit := uint64(1) << (n % 64); taken[n/64]&bit == 0 {
				taken[n/64] |= bit
				chosen[i] = have.addresses[n]
				i++
			}
		}
		return chosen
	}
	for i, address := range have.addresses {
		// Each of the first i+1 is at each place as likely (inside-out shuffle); beyond
		// the limit, a place is one that is left out.
		j := rand.IntN(i + 1)
		if i < limit && i != j {
			chosen[i] = chosen[j]
		}
		if j < limit {
			chosen[j] = address
		}
	}
	return chosen
}

// startOfAuthority is what tells a resolver how long to remember that there is
// nothing (RFC 2308).
func startOfAuthority(zone string, revision int64) *miekg.SOA {
	return &miekg.SOA{
		Hdr:     miekg.RR_Header{Name: zone, Rrtype: miekg.TypeSOA, Class: miekg.ClassINET, Ttl: ttl},
		Ns:      "_dns." + zone,
		Mbox:    "hostmaster." + zone,
		Serial:  uint32(revision),
		Refresh: ttl,
		Retry:   ttl,
		Expire:  ttl,
		Minttl:  ttl,
	}
}

// Fit cuts a reply to what its transport takes: over UDP what the client can
// receive, between 512 and 1232 bytes, over TCP 65535. The truncation bit then
// says that something is missing; of the addresses, a random part stays.
func Fit(reply, query *miekg.Msg, udp bool) { reply.Truncate(capacity(query, udp)) }

// capacity is how many bytes the reply to a query may have.
func capacity(query *miekg.Msg, udp bool) int {
	if !udp {
		return miekg.MaxMsgSize - 1
	}
	if opt := query.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), miekg.MinMsgSize), MaxUDP)
	}
	return miekg.MinMsgSize
}
