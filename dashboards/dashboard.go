// Package dashboards describes the pictures of sixpn's metrics for Grafana. The JSON
// files in this directory are made of it by go generate; the alert rules beside them
// are Prometheus' own format, and docs/runbook.md says what to do about each.
package dashboards

//go:generate go run ./generate

// Dashboard is one file.
type Dashboard struct {
	Name        string // of the file, and in the dashboard's uid
	Title       string
	Description string
	Variables   []Variable // beside the data source and the host
	Rows        []Row
}

// Variable narrows a dashboard: a label, and the metric that has all its values.
type Variable struct{ Label, Metric string }

// Row is panels under a heading.
type Row struct {
	Title  string
	Panels []Panel
}

// Kinds of panels, as Grafana calls them.
const (
	TimeSeries = "timeseries"
	Stat       = "stat"
)

// Panel is one picture.
type Panel struct {
	Title       string
	Description string
	Kind        string // "": TimeSeries
	Unit        string // of Grafana's list
	Queries     []Query
}

// Query is one question to Prometheus. $host and the dashboard's variables stand for
// regular expressions, $__rate_interval for a range that holds a few scrapes.
type Query struct {
	Expr   string
	Legend string // with {{label}}; "": what Grafana makes of the labels
}

// All is every dashboard.
func All() []Dashboard { return []Dashboard{host, fleet, network, flycast, names, drops} }
