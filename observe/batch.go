package observe

import (
	"slices"
	"strings"

	model "github.com/prometheus/client_model/go"
)

// batch is what one scrape reads, as the formats are made of it. The library's way, a
// metric object each that a registry takes apart, checks and sorts, costs three times
// as much: with 1,000 Machines that is what a scrape consists of. The registry's checks
// are made by a test instead.
type batch struct {
	families map[*family]*model.MetricFamily
}

func newBatch() *batch { return &batch{map[*family]*model.MetricFamily{}} }

// gaugeSeries and counterSeries are one allocation for all that a series consists of
// but its labels.
type gaugeSeries struct {
	model.Metric
	gauge model.Gauge
	value float64
}

type counterSeries struct {
	model.Metric
	counter model.Counter
	value   float64
}

// pairs are the labels of a series as the formats have them. They may be shared by
// series and by scrapes: nobody changes them.
type pairs []*model.LabelPair

// pairs makes the labels of a series of a family. It panics if there are not as many as
// the family has, which is a mistake of the caller.
func (f *family) pairs(labels ...string) pairs {
	if len(labels) != len(f.sorted) {
		panic("observe: " + f.name + ": " + strings.Join(labels, ", ") + ": expected values of " + strings.Join(f.labels, ", "))
	}
	list := make(pairs, len(labels))
	content := make([]struct {
		model.LabelPair
		value string
	}, len(labels))
	for i, label := range f.sorted {
		// Names of tenants are validated, but one label that is not UTF-8 would cost the
		// whole scrape.
		content[i].value = strings.ToValidUTF8(labels[label.at], "?")
		content[i].Name, content[i].Value = label.name, &content[i].value
		list[i] = &content[i].LabelPair
	}
	return list
}

// emit adds one series of a family that is read at scrape time.
func (f *family) emit(to *batch, value float64, labels ...string) {
	f.emitPairs(to, value, f.pairs(labels...))
}

// emitPairs is emit with labels that were made before, for this family or for one with
// the same labels.
func (f *family) emitPairs(to *batch, value float64, labels pairs) {
	of := to.families[f]
	if of == nil {
		kind := model.MetricType_GAUGE
		if f.kind == kindCounter {
			kind = model.MetricType_COUNTER
		}
		of = &model.MetricFamily{Name: &f.name, Help: &f.help, Type: &kind}
		to.families[f] = of
	}
	if f.kind == kindCounter {
		s := &counterSeries{value: value}
		s.Label, s.Counter, s.counter.Value = labels, &s.counter, &s.value
		of.Metric = append(of.Metric, &s.Metric)
		return
	}
	s := &gaugeSeries{value: value}
	s.Label, s.Gauge, s.gauge.Value = labels, &s.gauge, &s.value
	of.Metric = append(of.Metric, &s.Metric)
}

// labelCache keeps labels from scrape to scrape: to make them is most of what a series
// costs. What a key stands for must never change.
type labelCache[K comparable] struct {
	known  map[K]*cachedLabels
	scrape uint64
}

type cachedLabels struct {
	pairs
	used uint64 // scrape
}

func newLabelCache[K comparable]() *labelCache[K] {
	return &labelCache[K]{known: map[K]*cachedLabels{}}
}

func (c *labelCache[K]) get(key K, make func() pairs) pairs {
	labels := c.known[key]
	if labels == nil {
		labels = &cachedLabels{pairs: make()}
		c.known[key] = labels
	}
	labels.used = c.scrape
	return labels.pairs
}

// sweep forgets what was not used since the last sweep.
func (c *labelCache[K]) sweep() {
	for key, labels := range c.known {
		if labels.used != c.scrape {
			delete(c.known, key)
		}
	}
	c.scrape++
}

// list is the families, in no order.
func (b *batch) list() []*model.MetricFamily {
	list := make([]*model.MetricFamily, 0, len(b.families))
	for _, f := range b.families {
		list = append(list, f)
	}
	return list
}

// byName sorts families as every format wants them.
func byName(families []*model.MetricFamily) {
	slices.SortFunc(families, func(a, b *model.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
}
