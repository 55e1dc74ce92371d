package dns

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sync/singleflight"

	"github.com/sixpn/sixpn"
)

// Forward says how names that are none of ours are resolved. Durations and counts
// of 0 take the default that is named with them.
type Forward struct {
	// Upstreams are the resolvers to ask, address and port, the preferred first. None:
	// those of ResolvConf, which is looked at again as it changes.
	Upstreams  []string
	ResolvConf string // default /etc/resolv.conf
	// Dial makes the socket of one exchange, for tests; default: a net.Dialer in the
	// caller's network namespace.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Timeout       time.Duration // of one exchange, 1.2 s
	Patience      time.Duration // of all exchanges for one question, 4 s: stub resolvers wait for five
	Failures      int           // exchanges without an answer, one after the other, before an upstream is dead, 2
	ProbeFirst    time.Duration // from then to the first probe, doubled after each, 250 ms
	ProbeLast     time.Duration // at most between two probes, 10 s
	CheckInterval time.Duration // between two looks at ResolvConf, 1 s

	CacheBytes     int           // of memory for answers, about, 32 MiB
	MinTTL         time.Duration // for which an answer is kept at least, 0: as it says
	MaxTTL         time.Duration // and at most, 1 h
	MaxNegativeTTL time.Duration // the same for "there is nothing", 5 min
	FailureTTL     time.Duration // for which a question without an answer is not asked again, 1 s (RFC 9520)

	Questions        int // being asked at one time, 1024
	QuestionsNetwork int // of one network, a quarter of them
	QuestionsMachine int // of one Machine, 64
	Rate             int // questions of one Machine a second that no cache answers, 500
	Burst            int // of them at once, 1000
}

func (c Forward) withDefaults() Forward {
	setDefault(&c.ResolvConf, "/etc/resolv.conf")
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	setDefault(&c.Timeout, 1200*time.Millisecond)
	setDefault(&c.Patience, 4*time.Second)
	setDefault(&c.Failures, 2)
	setDefault(&c.ProbeFirst, 250*time.Millisecond)
	setDefault(&c.ProbeLast, 10*time.Second)
	setDefault(&c.CheckInterval, time.Second)
	setDefault(&c.CacheBytes, 32<<20)
	setDefault(&c.MaxTTL, time.Hour)
	setDefault(&c.MaxNegativeTTL, 5*time.Minute)
	setDefault(&c.FailureTTL, time.Second)
	setDefault(&c.Questions, 1024)
	setDefault(&c.QuestionsNetwork, max(c.Questions/4, 1))
	setDefault(&c.QuestionsMachine, 64)
	setDefault(&c.Rate, 500)
	setDefault(&c.Burst, 1000)
	return c
}

// forwarder asks upstream resolvers, and keeps what they say.
type forwarder struct {
	config    Forward
	log       *slog.Logger
	upstreams *upstreams
	cache     *cache
	shares    *shares
	flights   singleflight.Group // by key: a question is asked once, however many wait
	ctx       context.Context    // of what goes on when the one who asked first has left
	cancel    context.CancelFunc
}

func newForwarder(config Forward, observer Observer, log *slog.Logger) *forwarder {
	config = config.withDefaults()
	f := &forwarder{config: config, log: log, cache: newCache(config), shares: newShares(config)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.upstreams = newUpstreams(f.ctx, config, observer, log)
	return f
}

// close ends what goes on.
func (f *forwarder) close() {
	f.cancel()
	f.upstreams.tasks.wait()
}

// key is all that an answer depends on.
type key struct {
	name     string // in canonical form
	rrtype   uint16
	dnssec   bool // with signatures (DO)
	disabled bool // unchecked (CD)
}

func keyOf(query *miekg.Msg) key {
	opt := query.IsEdns0()
	return key{
		name: miekg.CanonicalName(query.Question[0].Name), rrtype: query.Question[0].Qtype,
		dnssec: opt != nil && opt.Do(), disabled: query.CheckingDisabled,
	}
}

func (k key) String() string {
	return strings.Join([]string{k.name, miekg.Type(k.rrtype).String(), flag(k.dnssec), flag(k.disabled)}, " ")
}

func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// failure is why a question has no answer, as the asker is told (RFC 8914).
type failure struct {
	code uint16
	text string
}

func (f *failure) Error() string { return f.text }

// What can be wrong with a question.
var (
	errNoUpstream = &failure{miekg.ExtendedErrorCodeNoReachableAuthority, "this host names no resolver that could be asked"}
	errSilence    = &failure{miekg.ExtendedErrorCodeNoReachableAuthority, "no upstream resolver answered"}
	errTooMany    = &failure{miekg.ExtendedErrorCodeProhibited, "too many questions of this Machine or its network at once"}
	errLoop       = &failure{miekg.ExtendedErrorCodeOther, "the upstream resolver asks this one"}
	errEnded      = &failure{miekg.ExtendedErrorCodeNotReady, "the resolver ends"}
)

// resolve answers a question about somebody else's name for a Machine. reply has
// the header and the OPT record that the query calls for.
func (f *forwarder) resolve(ctx context.Context, client sixpn.Fields, query, reply *miekg.Msg) (*miekg.Msg, Source) {
	if f.upstreams.returned(query.Question[0].Name) {
		return fail(reply, errLoop), SourceForward
	}
	if !query.RecursionDesired {
		// What others asked before is nobody's business.
		reply.Rcode = miekg.RcodeRefused
		return reply, SourceRefused
	}
	asked := keyOf(query)
	if known, ok := f.cache.get(asked); ok {
		return known.fill(query, reply), SourceCache
	}
	if !f.shares.take(client) {
		return fail(reply, errTooMany), SourceForward
	}
	defer f.shares.give(client)

	flight := f.flights.DoChan(asked.String(), func() (any, error) { return f.fly(asked), nil })
	select {
	case landed := <-flight:
		return landed.Val.(*answer).fill(query, reply), SourceForward
	case <-ctx.Done():
		return fail(reply, errEnded), SourceForward
	}
}

func fail(reply *miekg.Msg, why *failure) *miekg.Msg {
	reply.Rcode = miekg.RcodeServerFailure
	if opt := reply.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &miekg.EDNS0_EDE{InfoCode: why.code, ExtraText: why.text})
	}
	return reply
}

// fly asks, and keeps the answer. A panic costs the one answer, not the agent.
func (f *forwarder) fly(asked key) (got *answer) {
	defer func() {
		if cause := recover(); cause != nil {
			f.log.Error("forwarding a DNS query panicked", "cause", cause, "question", asked, "stack", string(debug.Stack()))
			got = &answer{failure: errSilence}
		}
	}()
	got = f.ask(asked)
	if got.failure == errSilence {
		// What is asked again at once would hold its places again all the time.
		got.ttl = f.config.FailureTTL
	}
	f.cache.put(asked, got)
	return got
}

// ask puts a question to one upstream after the other until one has an answer.
// An upstream that fails to resolve the name itself is not the last word.
func (f *forwarder) ask(asked key) *answer {
	ctx, cancel := context.WithTimeout(f.ctx, f.config.Patience)
	defer cancel()
	candidates, err := f.upstreams.inOrder()
	if err != nil {
		return &answer{failure: err}
	}
	var last *answer
	said := make(map[*upstream]bool)
	// A datagram may be lost: who was silent is asked once more.
	for range 2 {
		for _, u := range candidates {
			if said[u] || ctx.Err() != nil {
				continue
			}
			message, err := u.exchange(ctx, asked)
			if err != nil {
				continue
			}
			got := newAnswer(f.config, asked, message)
			if got == nil {
				continue
			}
			if message.Rcode == miekg.RcodeSuccess || message.Rcode == miekg.RcodeNameError {
				return got
			}
			said[u] = true
			last = got
		}
	}
	if f.ctx.Err() != nil {
		return &answer{failure: errEnded}
	}
	return cmp.Or(last, &answer{failure: errSilence})
}
