package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/sixpn/sixpn/internal/nettest"
)

// sample is one value of a metric.
type sample struct {
	labels map[string]string
	value  float64
}

// scrape reads the metrics as Prometheus does, counters and gauges by name.
func (w *world) scrape(ctx context.Context) (map[string][]sample, error) {
	text, err := w.get(ctx, w.host, "http://"+nettest.MetricsAddress+"/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text + "\n"))
	if err != nil {
		return nil, fmt.Errorf("what the agent serves is not in the text format: %w", err)
	}
	all := map[string][]sample{}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			s := sample{labels: map[string]string{}}
			for _, pair := range metric.GetLabel() {
				s.labels[pair.GetName()] = pair.GetValue()
			}
			switch {
			case metric.Counter != nil:
				s.value = metric.GetCounter().GetValue()
			case metric.Gauge != nil:
				s.value = metric.GetGauge().GetValue()
			case metric.Untyped != nil:
				s.value = metric.GetUntyped().GetValue()
			default:
				continue
			}
			all[name] = append(all[name], s)
		}
	}
	return all, nil
}

// sum adds up the samples that have all these labels, "name=value".
func sum(samples []sample, labels ...string) (total float64) {
next:
	for _, s := range samples {
		for _, label := range labels {
			name, value, _ := strings.Cut(label, "=")
			if s.labels[name] != value {
				continue next
			}
		}
		total += s.value
	}
	return total
}

// metricsScrape: the metrics say what is known to be so.
func metricsScrape(ctx context.Context, w *world) (string, error) {
	const count = 50
	before, err := w.scrape(ctx)
	if err != nil {
		return "", err
	}
	got, err := connections(ctx, w.client, "-count", fmt.Sprint(count), at(w.webVIP, vipPort))
	if err != nil {
		return "", err
	}
	if err := answers(ctx, w.client, "AAAA", "web.flycast", w.webVIP.String()); err != nil {
		return "", err
	}
	// What checks before have left behind may still be tidied up.
	if err := w.host.Settle(ctx); err != nil {
		return "", err
	}
	after, err := w.scrape(ctx)
	if err != nil {
		return "", err
	}
	rise := func(name string, labels ...string) float64 {
		return sum(after[name], labels...) - sum(before[name], labels...)
	}
	vip := "vip=" + w.webVIP.String()
	for _, row := range []struct {
		what  string
		value float64
		least float64
		most  float64
	}{
		{"Machines of app web that are started", sum(after["sixpn_machines"], "app=web", "state=started"), 2, 2},
		{"new flows of the Flycast address", rise("sixpn_service_flows_total", vip, "protocol=tcp"), count, count},
		{"choices of its backends", rise("sixpn_backend_choices_total", vip, "protocol=tcp"), count, count},
		{"packets from Machines of org acme", rise("sixpn_port_packets_total", "kind=machine", "org=acme", "direction=in"), 3 * count, 1e6},
		{"answers from .flycast", rise("sixpn_dns_answers_total", "source=flycast", "rcode=NOERROR"), 2, 10},
		{"revisions not applied", sum(after["sixpn_wanted_revision"]) - sum(after["sixpn_applied_revision"]), 0, 0},
		{"stores that serve", sum(after["sixpn_store_up"]), 1, 1},
	} {
		if row.value < row.least || row.value > row.most {
			return "", fmt.Errorf("%s: the metrics say %v, expected %v to %v", row.what, row.value, row.least, row.most)
		}
	}
	if got.OK != count {
		return "", fmt.Errorf("%d of %d connections came through", got.OK, count)
	}
	return fmt.Sprintf("%d metrics; %d new connections are counted by service, by backend and in packets of org acme", len(after), count), nil
}

// metricsDropReason: what a wall stops is counted under its reason, packet by packet.
func metricsDropReason(ctx context.Context, w *world) (string, error) {
	read := func() (float64, error) {
		samples, err := w.scrape(ctx)
		return sum(samples["sixpn_dropped_packets_total"], "reason=other_network"), err
	}
	before, err := read()
	if err != nil {
		return "", err
	}
	sent, err := datagrams(ctx, w.spy, "-count", "40", "-timeout", silence.String(), at(w.web[0].Addr, udpPort))
	if err != nil {
		return "", err
	}
	if sent.Received > 0 {
		return "", fmt.Errorf("%d datagrams of another org were answered", sent.Received)
	}
	after, err := read()
	if err != nil {
		return "", err
	}
	return exactly(uint64(after-before), uint64(sent.Sent), "other_network", `sixpn_dropped_packets_total{reason="other_network"} rose by what spy-1 sent`)
}
