package observe

import (
	"sync"
	"time"

	library "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sixpn/sixpn/dns"
)

const sectionNames = "DNS"

var (
	answers        = counter(sectionNames, "dns_answers_total", "Queries that the resolver answered, by type of the question, status of the answer, where it came from and how it was asked", "type", "rcode", "source", "transport")
	answerSeconds  = histogram(sectionNames, "dns_answer_duration_seconds", "Time that answers took", "source")
	upstreamUp     = gauge(sectionNames, "dns_upstream_up", "Whether an upstream resolver is asked; one that is found dead is probed until it answers", "upstream")
	exchanges      = counter(sectionNames, "dns_upstream_exchanges_total", "Questions put to upstream resolvers; result is ok for whatever acceptable answer, else failed", "upstream", "transport", "result")
	exchangeSecond = histogram(sectionNames, "dns_upstream_duration_seconds", "Time that exchanges with upstream resolvers took, failed ones too", "upstream")
)

// passing is what is counted as it happens.
type passing struct {
	propagation    *prometheus.HistogramVec
	answers        *prometheus.CounterVec
	answerSeconds  *prometheus.HistogramVec
	upstreamUp     *prometheus.GaugeVec
	exchanges      *prometheus.CounterVec
	exchangeSecond *prometheus.HistogramVec

	mu        *sync.Mutex
	upstreams *bound[string]
}

func newPassing() passing {
	p := passing{
		propagation:    propagation.vec(),
		answers:        answers.counts(),
		answerSeconds:  answerSeconds.vec(),
		upstreamUp:     upstreamUp.gauges(),
		exchanges:      exchanges.counts(),
		exchangeSecond: exchangeSecond.vec(),
		mu:             &sync.Mutex{},
		upstreams:      newBound[string](maxUpstreams),
	}
	p.propagation.WithLabelValues() // it exists before the first change
	return p
}

func (p passing) collectors() []prometheus.Collector {
	return []prometheus.Collector{p.propagation, p.answers, p.answerSeconds, p.upstreamUp, p.exchanges, p.exchangeSecond}
}

// Applied notes how long a change took to reach the tables.
func (o *Collector) Applied(took time.Duration) {
	o.passing.propagation.WithLabelValues().Observe(took.Seconds())
}

// Names is the resolver's observer.
func (o *Collector) Names() dns.Observer { return names{o.passing} }

type names struct{ passing }

// Answered is dns.Observer.
func (n names) Answered(a dns.Answered) {
	n.answers.WithLabelValues(typeName(a.Type), rcodeName(a.Rcode), string(a.Source), a.Transport).Inc()
	n.answerSeconds.WithLabelValues(string(a.Source)).Observe(a.Duration.Seconds())
}

// Exchanged is dns.Observer.
func (n names) Exchanged(e dns.Exchanged) {
	result := "failed"
	if e.OK {
		result = "ok"
	}
	upstream := n.upstream(e.Upstream)
	n.exchanges.WithLabelValues(upstream, e.Transport, result).Inc()
	n.exchangeSecond.WithLabelValues(upstream).Observe(e.Duration.Seconds())
}

// Health is dns.Observer.
func (n names) Health(upstream string, up bool) {
	n.upstreamUp.WithLabelValues(n.upstream(upstream)).Set(number(up))
}

// Forgotten is dns.Observer.
func (n names) Forgotten(upstream string) {
	label := n.upstream(upstream)
	if label == other {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.upstreams.forget(func(known string) bool { return known != upstream })
	gone := prometheus.Labels{"upstream": label}
	n.upstreamUp.DeletePartialMatch(gone)
	n.exchanges.DeletePartialMatch(gone)
	n.exchangeSecond.DeletePartialMatch(gone)
}

func (n names) upstream(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.upstreams.admits(name) {
		return name
	}
	return other
}

// typeNames are the types that have a label of their own: a client may ask for any of
// 65,536.
var typeNames = func() map[uint16]string {
	names := map[uint16]string{0: "none"}
	for _, t := range []uint16{
		library.TypeA, library.TypeAAAA, library.TypeTXT, library.TypePTR, library.TypeSRV, library.TypeMX, library.TypeNS,
		library.TypeSOA, library.TypeCNAME, library.TypeHTTPS, library.TypeSVCB, library.TypeDS, library.TypeDNSKEY, library.TypeANY,
	} {
		names[t] = library.TypeToString[t]
	}
	return names
}()

func typeName(t uint16) string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return other
}

func rcodeName(rcode int) string {
	if name, ok := library.RcodeToString[rcode]; ok {
		return name
	}
	return other
}
