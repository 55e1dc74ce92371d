package agent

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/dns"
)

// tenant asks and pings from inside a network, for the API.
type tenant struct{ *agent }

var (
	_ api.Resolver = tenant{}
	_ api.Pinger   = tenant{}
)

// Resolve is api.Resolver. The answer is the whole one, as over TCP.
func (t tenant) Resolve(ctx context.Context, network sixpn.Network, name, kind string) (api.DigResult, error) {
	query, err := question(name, kind)
	if err != nil {
		return api.DigResult{}, err
	}
	reply := t.resolver(network).Resolve(ctx, network, query)
	if reply == nil {
		return api.DigResult{}, errors.New("the resolver has no answer to such a message")
	}
	result := api.DigResult{
		Rcode: miekg.RcodeToString[reply.Rcode], Name: query.Question[0].Name, Type: typeName(query.Question[0].Qtype),
		Answers: records(reply.Answer), Authority: records(reply.Ns),
	}
	short := reply.Copy()
	dns.Fit(short, query, true)
	result.Truncated = short.Truncated
	return result, nil
}

// resolver is the one that knows a network.
func (t tenant) resolver(network sixpn.Network) *dns.Server {
	if _, here := t.store.Snapshot().Networks[network]; !here {
		return t.allNames // no Machine of that network is here to be asked
	}
	return t.names
}

// question makes a query as the resolver library of a Machine does. Of an address
// it asks the name.
func question(name, kind string) (*miekg.Msg, error) {
	query := new(miekg.Msg)
	if address, err := netip.ParseAddr(name); err == nil {
		reverse, err := miekg.ReverseAddr(address.WithZone("").String())
		if err != nil {
			return nil, api.Invalid("name", "name is %q, which has no name to ask for: %v", name, err)
		}
		return withEDNS(query.SetQuestion(reverse, miekg.TypePTR)), nil
	}
	if _, ok := miekg.IsDomainName(name); !ok {
		return nil, api.Invalid("name", "name is %.300q, which is no domain name: expected labels of 1 to 63 bytes, 255 in all, such as web.internal", name)
	}
	qtype, ok := miekg.StringToType[strings.ToUpper(kind)]
	if !ok || qtype == miekg.TypeNone || qtype == miekg.TypeOPT {
		return nil, api.Invalid("type", "type is %.40q, expected one that can be asked for, such as AAAA, TXT or PTR", kind)
	}
	return withEDNS(query.SetQuestion(miekg.Fqdn(name), qtype)), nil
}

func withEDNS(query *miekg.Msg) *miekg.Msg { return query.SetEdns0(dns.MaxUDP, false) }

func typeName(t uint16) string { return miekg.Type(t).String() }

func records(all []miekg.RR) []api.DNSRecord {
	out := make([]api.DNSRecord, 0, len(all))
	for _, r := range all {
		h := r.Header()
		out = append(out, api.DNSRecord{
			Name: h.Name, Type: typeName(h.Rrtype), TTL: int(h.Ttl), Data: strings.TrimPrefix(r.String(), h.String()),
		})
	}
	return out
}
