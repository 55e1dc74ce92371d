package observe_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/observe"
)

// BenchmarkScrape is one scrape of a host with 1,000 Machines in 100 networks, each an
// app with two services on a Flycast address, in the format that Prometheus asks for.
// Beside it: a host with nothing, and what every Go program serves of itself.
func BenchmarkScrape(b *testing.B) {
	program := prometheus.NewRegistry()
	program.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, c := range []struct {
		name    string
		handler func(b *testing.B) http.Handler
	}{
		{"1000 Machines", func(b *testing.B) http.Handler { return newWorld(b, 100, 1000).handler }},
		{"no Machine", func(b *testing.B) http.Handler { return newWorld(b, 1, 0).handler }},
		{"a Go program", func(*testing.B) http.Handler { return promhttp.HandlerFor(program, promhttp.HandlerOpts{}) }},
	} {
		for _, format := range []struct{ name, accept string }{
			{"text", "text/plain;version=0.0.4"},
			{"protobuf", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"},
		} {
			b.Run(c.name+"/"+format.name, func(b *testing.B) {
				handler := c.handler(b)
				b.ReportAllocs()
				bytes, before := 0, cpuTime(b)
				for b.Loop() {
					request := httptest.NewRequest(http.MethodGet, observe.Path, nil)
					request.Header.Set("Accept", format.accept)
					answer := &counted{header: http.Header{}}
					handler.ServeHTTP(answer, request)
					bytes = answer.bytes
				}
				b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1000/float64(b.N), "CPU-ms/op")
				b.ReportMetric(float64(bytes), "bytes/op")
			})
		}
	}
}

// cpuTime is what this process has used so far, the collection of its garbage included.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// counted is a response that is thrown away.
type counted struct {
	header http.Header
	bytes  int
}

func (c *counted) Header() http.Header { return c.header }
func (c *counted) WriteHeader(int)     {}
func (c *counted) Write(p []byte) (int, error) {
	c.bytes += len(p)
	return io.Discard.Write(p)
}
