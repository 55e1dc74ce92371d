package observe

import (
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
	desc    *prometheus.Desc
}

// families is every metric, in the order of the files and of the lines in them.
var families []*family

func newFamily(section, kind, name, help string, labels []string) *family {
	f := &family{prefix + name, section, kind, help, labels, prometheus.NewDesc(prefix+name, help, labels, nil)}
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

// emit sends one series of a metric that is read at scrape time.
func (f *family) emit(to chan<- prometheus.Metric, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if f.kind == kindCounter {
		kind = prometheus.CounterValue
	}
	// Names of tenants are validated, but a label that is not UTF-8 would cost the
	// whole scrape.
	for i, label := range labels {
		labels[i] = strings.ToValidUTF8(label, "?")
	}
	to <- prometheus.MustNewConstMetric(f.desc, kind, value, labels...)
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
