package observe

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	model "github.com/prometheus/client_model/go"
)

// Path is where the metrics are served.
const Path = "/metrics"

// registerProcess adds what every Go program tells of itself.
func registerProcess(r *prometheus.Registry) error {
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("observe: %w", err)
		}
	}
	return nil
}

// storeFamilies are the metrics that the embedded store puts into the library's default
// registry, of which these are worth a scrape. They keep the names that etcd gives them.
var storeFamilies = map[string]bool{
	"etcd_disk_wal_fsync_duration_seconds":      true,
	"etcd_disk_backend_commit_duration_seconds": true,
	"etcd_server_leader_changes_seen_total":     true,
	"etcd_server_proposals_failed_total":        true,
	"etcd_server_slow_apply_total":              true,
}

// storeMetrics are these of the default registry.
func storeMetrics() ([]*model.MetricFamily, error) {
	all, err := prometheus.DefaultGatherer.Gather()
	var chosen []*model.MetricFamily
	for _, family := range all {
		if storeFamilies[family.GetName()] {
			chosen = append(chosen, family)
		}
	}
	return chosen, err
}

// Handler serves the metrics under Path, in the format that is asked for: text,
// OpenMetrics, or protobuf, which alone carries native histograms.
func (o *Collector) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, promhttp.HandlerFor(o, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		ErrorHandling:       promhttp.ContinueOnError, // a part that fails leaves the others
		ErrorLog:            errorLog{o.config.Log},
		MaxRequestsInFlight: 4,
		// To compress a large answer costs as much CPU as to make it.
		DisableCompression: true,
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "sixpn %s: metrics are under %s\n", o.config.Version, Path)
	})
	return mux
}

// errorLog is the library's view of our log.
type errorLog struct{ log *slog.Logger }

// Println is promhttp.Logger.
func (l errorLog) Println(v ...any) {
	l.log.Error("metrics are incomplete", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}
