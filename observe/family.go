package observe

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// prefix is that of every metric of our own.
const prefix = "sixpn_"

// Kinds of metrics, as the reference calls them.
const (
	kindGauge     = "gauge"
	kindCounter   = "counter"
	kindHistogram = "histogram"
)

// family is one metric: what it is called, what it says, and what tells its series
// apart. The variables of this type, each beside the code that fills it in, are the one
// list of metrics: what is served and docs/metrics.md are made of it.
type family struct {
	name    string
	section string
	kind    string
	help    string // one sentence without a final full stop, as Prometheus shows it
	labels  []string
	sorted  []label // the same as the format has them: by name
}

// label is a name and its place among the arguments of emit.
type label struct {
	name *string
	at   int
}

// families is every metric, in the order of the files and of the lines in them.
var families []*family

func newFamily(section, kind, name, help string, labels []string) *family {
	f := &family{name: prefix + name, section: section, kind: kind, help: help, labels: labels}
	for i := range labels {
		f.sorted = append(f.sorted, label{&labels[i], i})
	}
	slices.SortFunc(f.sorted, func(a, b label) int { return strings.Compare(*a.name, *b.name) })
	families = append(families, f)
	return f
}

func gauge(section, name, help string, labels ...string) *family {
	return newFamily(section, kindGauge, name, help, labels)
}

func counter(section, name, help string, labels ...string) *family {
	return newFamily(section, kindCounter, name, help, labels)
}

func histogram(section, name, help string, labels ...string) *family {
	return newFamily(section, kindHistogram, name, help, labels)
}

// latencies are the bounds of the classic buckets, in seconds: those that can scrape
// native histograms get finer ones.
var latencies = []float64{50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5}

// vec makes the histogram of a family that is observed as things happen.
func (f *family) vec() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: f.name, Help: f.help,
		Buckets:                        latencies,
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 160,
	}, f.labels)
}

// counts makes the counter of a family that is counted as things happen.
func (f *family) counts() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.name, Help: f.help}, f.labels)
}

// gauges makes the gauge of a family that is set as things happen.
func (f *family) gauges() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: f.name, Help: f.help}, f.labels)
}
