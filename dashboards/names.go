package dashboards

var names = Dashboard{
	Name: "dns", Title: "sixpn: DNS",
	Description: "What Machines ask the resolver, what they are answered, how fast, and how the resolvers for the rest of the world do.",
	Rows: []Row{
		{"Answers", []Panel{
			{"By type", "Queries by type of the question.", "", "reqps", []Query{{sumBy("type", perSecond("sixpn_dns_answers_total")), "{{type}}"}}},
			{"By status", "Queries by status of the answer. NXDOMAIN is what a name that does not exist gets.", "", "reqps", []Query{{sumBy("rcode", perSecond("sixpn_dns_answers_total")), "{{rcode}}"}}},
			{"By source", "Where answers come from: the private names, the cache, or another resolver.", "", "reqps", []Query{{sumBy("source", perSecond("sixpn_dns_answers_total")), "{{source}}"}}},
			{"By transport", "TCP is for answers that are too large for a datagram.", "", "reqps", []Query{{sumBy("transport", perSecond("sixpn_dns_answers_total")), "{{transport}}"}}},
			{"Median time", "Half of the answers take no longer.", "", "s", []Query{{quantile(0.5, "source", "sixpn_dns_answer_duration_seconds"), "{{source}}"}}},
			{"99 % time", "99 % of the answers take no longer.", "", "s", []Query{{quantile(0.99, "source", "sixpn_dns_answer_duration_seconds"), "{{source}}"}}},
			{"Failures", "Share of answers with status SERVFAIL.", "", "percentunit", []Query{
				{ratio("("+sumBy("", perSecond("sixpn_dns_answers_total", `rcode="SERVFAIL"`))+" or vector(0))", sumBy("", perSecond("sixpn_dns_answers_total"))), ""}}},
			{"Found in the cache", "Share of the names of the rest of the world that need no other resolver.", "", "percentunit", []Query{
				{ratio("("+sumBy("", perSecond("sixpn_dns_answers_total", `source="cache"`))+" or vector(0))", sumBy("", perSecond("sixpn_dns_answers_total", `source=~"cache|forward"`))), ""}}},
		}},
		{"Upstream resolvers", []Panel{
			{"Up", "1 while a resolver is asked, 0 while it is dead and only probed.", "", "none", []Query{{of("sixpn_dns_upstream_up"), "{{instance}} {{upstream}}"}}},
			{"Exchanges", "Questions put to other resolvers.", "", "reqps", []Query{{sumBy("upstream, result", perSecond("sixpn_dns_upstream_exchanges_total")), "{{upstream}} {{result}}"}}},
			{"99 % time of exchanges", "99 % of the exchanges take no longer.", "", "s", []Query{{quantile(0.99, "upstream", "sixpn_dns_upstream_duration_seconds"), "{{upstream}}"}}},
		}},
	},
}
