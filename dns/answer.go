// Package dns answers the names of a private network: what stands under
// .internal and .flycast. An answer is a pure function of the state, of the
// network that asks and of the question; the server around it only moves
// messages.
package dns

import (
	"math/rand/v2"
	"net"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

const (
	// ttl of every record, seconds: Machines come and go.
	ttl = 5
	// maxUDP is the largest message sent over UDP, bytes: what passes every path
	// without a fragment.
	maxUDP = 1232
)

// Answer is the reply to query as a client in network asker gets it, before it
// is cut to what the transport takes. It is nil when the message deserves none,
// being a reply itself. Addresses come in a new random order each time.
func Answer(snapshot *state.Snapshot, asker sixpn.Network, query *miekg.Msg) *miekg.Msg {
	if query.Response {
		return nil
	}
	reply := new(miekg.Msg).SetReply(query)
	if reply.Rcode = judge(query, reply); reply.Rcode != miekg.RcodeSuccess {
		return reply
	}

	asked := query.Question[0]
	zone, found, ok := find(snapshot, asker, asked.Name)
	if zone == "" {
		reply.Rcode = miekg.RcodeRefused
		return reply
	}
	reply.Authoritative = true
	soa := startOfAuthority(zone, snapshot.Revision)
	if !ok {
		reply.Rcode = miekg.RcodeNameError
		reply.Ns = []miekg.RR{soa}
		return reply
	}
	reply.Answer, reply.Truncated = resources(asked, found)
	if zoneItself := miekg.CanonicalName(asked.Name) == zone; zoneItself && wants(asked, miekg.TypeSOA) {
		soa.Hdr.Name = asked.Name
		reply.Answer = []miekg.RR{soa}
	}
	if len(reply.Answer) == 0 {
		reply.Ns = []miekg.RR{soa}
	}
	return reply
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
		reply.SetEdns0(maxUDP, options[0].Do())
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

// resources turns what a name holds into records. Their owner is the name as the
// asker wrote it, since some resolvers use the case as a secret. truncated is true
// when no message could hold all of it.
func resources(asked miekg.Question, found records) (all []miekg.RR, truncated bool) {
	header := func(rrtype uint16) miekg.RR_Header {
		return miekg.RR_Header{Name: asked.Name, Rrtype: rrtype, Class: miekg.ClassINET, Ttl: ttl}
	}
	if wants(asked, miekg.TypeAAAA) {
		for _, address := range found.addresses {
			all = append(all, &miekg.AAAA{Hdr: header(miekg.TypeAAAA), AAAA: net.IP(address.AsSlice())})
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	if wants(asked, miekg.TypeTXT) && len(found.text) > 0 {
		list, whole := characterStrings(found.text)
		all = append(all, &miekg.TXT{Hdr: header(miekg.TypeTXT), Txt: list})
		truncated = !whole
	}
	return all, truncated
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
func Fit(reply, query *miekg.Msg, udp bool) {
	size := miekg.MaxMsgSize - 1
	if udp {
		size = miekg.MinMsgSize
		if opt := query.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), miekg.MinMsgSize), maxUDP)
		}
	}
	reply.Truncate(size)
}
