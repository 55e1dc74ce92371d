package dashboards

import (
	"fmt"
	"strings"
)

// onHost is in every selector: the hosts that were chosen.
const onHost = `instance=~"$host"`

// of selects a metric on the chosen hosts.
func of(metric string, matchers ...string) string {
	return metric + "{" + strings.Join(append([]string{onHost}, matchers...), ",") + "}"
}

// perSecond is the rate of a counter.
func perSecond(metric string, matchers ...string) string {
	return "rate(" + of(metric, matchers...) + "[$__rate_interval])"
}

// sumBy adds up, apart by some labels ("": all together).
func sumBy(labels, expr string) string {
	if labels == "" {
		return "sum(" + expr + ")"
	}
	return fmt.Sprintf("sum by (%s) (%s)", labels, expr)
}

// quantile of a histogram, apart by labels. The metric may have been scraped with native
// or with classic buckets: Prometheus keeps one kind of them.
func quantile(q float64, by, metric string) string {
	classic := "le"
	if by != "" {
		classic = by + ", le"
	}
	return fmt.Sprintf("histogram_quantile(%g, %s) or histogram_quantile(%g, %s)",
		q, sumBy(by, perSecond(metric)), q, sumBy(classic, perSecond(metric+"_bucket")))
}

// ratio divides; nothing where there is nothing to divide by.
func ratio(part, whole string) string { return part + " / (" + whole + " > 0)" }
