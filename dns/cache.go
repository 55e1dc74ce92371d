package dns

import (
	"time"

	"github.com/maypok86/otter/v2"
	miekg "github.com/miekg/dns"
)

// answer is what an upstream resolver said to a question, or why none did. It is
// shared by all who ask.
type answer struct {
	failure *failure   // nil: message holds
	message *miekg.Msg // without question and OPT record, TTLs within the bounds
	errors  []miekg.EDNS0
	size    int // bytes as a message
	stored  time.Time
	ttl     time.Duration // how long it is kept; 0: not at all
}

// newAnswer takes a checked message over. It is nil for one that could not be
// passed on.
func newAnswer(config Forward, asked key, message *miekg.Msg) *answer {
	a := &answer{message: message, stored: time.Now()}
	if opt := message.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			// The rest is between that resolver and this one.
			if explained, ok := option.(*miekg.EDNS0_EDE); ok {
				a.errors = append(a.errors, explained)
			}
		}
	}
	if message.Rcode > 0xf { // needs an OPT record, which the asker may not understand
		message.Rcode = miekg.RcodeServerFailure
	}
	message.Question = nil
	message.Answer, message.Ns, message.Extra = a.records(message.Answer), a.records(message.Ns), a.records(message.Extra)
	a.ttl = lifetime(config, asked, message)
	for _, rr := range a.all() {
		header := rr.Header()
		if miekg.CanonicalName(header.Name) == asked.name {
			header.Name = asked.name
		}
		header.Ttl = seconds(config, header.Ttl, config.MaxTTL)
	}
	wire, err := message.Pack()
	if err != nil {
		return nil
	}
	a.size = len(wire)
	return a
}

// records leaves out what speaks of the message itself, and other classes.
func (a *answer) records(section []miekg.RR) (kept []miekg.RR) {
	for _, rr := range section {
		switch header := rr.Header(); header.Rrtype {
		case miekg.TypeOPT, miekg.TypeTSIG, miekg.TypeTKEY:
		default:
			if header.Class == miekg.ClassINET {
				kept = append(kept, rr)
			}
		}
	}
	return kept
}

func (a *answer) all() []miekg.RR {
	all := append([]miekg.RR(nil), a.message.Answer...)
	return append(append(all, a.message.Ns...), a.message.Extra...)
}

// lifetime is how long an answer is kept: as long as the first of its records, and
// "there is nothing" as long as the SOA record says (RFC 2308), both within the
// bounds. What came without one is not kept.
func lifetime(config Forward, asked key, message *miekg.Msg) time.Duration {
	switch {
	case message.Rcode != miekg.RcodeSuccess && message.Rcode != miekg.RcodeNameError:
		return config.FailureTTL
	case message.Truncated:
		return 0
	}
	negative := message.Rcode == miekg.RcodeNameError
	if !negative {
		negative = true
		for _, rr := range message.Answer {
			// An alias alone is none, unless it was the question.
			if t := rr.Header().Rrtype; t == asked.rrtype || asked.rrtype == miekg.TypeANY {
				negative = false
			}
		}
	}
	shortest := ^uint32(0)
	for _, rr := range message.Answer {
		shortest = min(shortest, rr.Header().Ttl)
	}
	if !negative {
		for _, section := range [][]miekg.RR{message.Ns, message.Extra} {
			for _, rr := range section {
				shortest = min(shortest, rr.Header().Ttl)
			}
		}
		return bounded(config, shortest, config.MaxTTL)
	}
	for _, rr := range message.Ns {
		if soa, ok := rr.(*miekg.SOA); ok {
			soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
			return bounded(config, min(shortest, soa.Hdr.Ttl), config.MaxNegativeTTL)
		}
	}
	return 0
}

// bounded is a TTL within the bounds. One with the highest bit set is 0 (RFC 2181).
func bounded(config Forward, ttl uint32, most time.Duration) time.Duration {
	if ttl > 1<<31-1 {
		ttl = 0
	}
	return min(max(time.Duration(ttl)*time.Second, config.MinTTL), most)
}

func seconds(config Forward, ttl uint32, most time.Duration) uint32 {
	return uint32(bounded(config, ttl, most) / time.Second)
}

// fill makes a reply of the answer: the asker's own spelling, and TTLs that tell
// how old it is. reply has the header and the OPT record that the query calls for.
func (a *answer) fill(query, reply *miekg.Msg) *miekg.Msg {
	if a.failure != nil {
		return fail(reply, a.failure)
	}
	asked := query.Question[0].Name
	canonical := miekg.CanonicalName(asked)
	age := uint32(time.Since(a.stored) / time.Second)
	section := func(records []miekg.RR) (copies []miekg.RR) {
		for _, rr := range records {
			rr = miekg.Copy(rr)
			header := rr.Header()
			if header.Name == canonical {
				header.Name = asked
			}
			header.Ttl -= min(age, header.Ttl)
			copies = append(copies, rr)
		}
		return copies
	}
	reply.Rcode = a.message.Rcode
	reply.Answer, reply.Ns, reply.Extra = section(a.message.Answer), section(a.message.Ns), append(section(a.message.Extra), reply.Extra...)
	opt := reply.IsEdns0()
	if opt != nil {
		opt.Option = append(opt.Option, a.errors...)
	}
	// Only who understands the bit gets it (RFC 6840).
	reply.AuthenticatedData = a.message.AuthenticatedData && (query.AuthenticatedData || opt != nil && opt.Do())
	reply.Truncated = a.message.Truncated
	return reply
}

// cache is the answers that are kept, each for its own time.
type cache struct {
	kept *otter.Cache[key, *answer]
}

func newCache(config Forward) *cache {
	const each = 512 // bytes that an entry takes beside its message, about
	return &cache{otter.Must(&otter.Options[key, *answer]{
		MaximumWeight: uint64(config.CacheBytes),
		// Records in memory take several times what they take in a message.
		Weigher: func(k key, a *answer) uint32 { return uint32(each + len(k.name) + 4*a.size) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(entry otter.Entry[key, *answer]) time.Duration {
			return entry.Value.ttl
		}),
	})}
}

func (c *cache) get(k key) (*answer, bool) { return c.kept.GetIfPresent(k) }

func (c *cache) put(k key, a *answer) {
	if a.ttl > 0 {
		c.kept.Set(k, a)
	}
}
