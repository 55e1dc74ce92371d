package dashboards

var drops = Dashboard{
	Name: "drops", Title: "sixpn: drops",
	Description: "Packets that did not go on, by reason. docs/drop-reasons.md explains each reason.",
	Variables:   []Variable{{"reason", "sixpn_dropped_packets_total"}},
	Rows: []Row{
		{"Drops", []Panel{
			{"By reason", "Dropped packets by reason; those without any are left out.", "", "pps", []Query{{sumBy("reason", perSecond("sixpn_dropped_packets_total", `reason=~"$reason"`)) + " > 0", "{{reason}}"}}},
			{"By host", "Dropped packets by host.", "", "pps", []Query{{sumBy("instance", perSecond("sixpn_dropped_packets_total", `reason=~"$reason"`)), "{{instance}}"}}},
			{"By network", "Dropped packets by the network that they came from, whatever the reason.", "", "pps", []Query{{sumBy("kind, org, network", perSecond("sixpn_port_dropped_packets_total")), "{{kind}} {{org}} {{network}}"}}},
			{"Share", "Dropped packets over all that came in.", "", "percentunit", []Query{
				{ratio(sumBy("", perSecond("sixpn_port_dropped_packets_total")), sumBy("", perSecond("sixpn_port_packets_total", `direction="in"`)+" + ignoring (direction) "+perSecond("sixpn_port_dropped_packets_total"))), ""}}},
			{"Must not happen", "A packet that the last check stopped (wall), or a state that the program did not expect (internal). Each is a mistake of sixpn: report it.", "", "none", []Query{
				{sumBy("reason", "increase("+of("sixpn_dropped_packets_total", `reason=~"wall|internal"`)+"[$__rate_interval])"), "{{reason}}"}}},
			{"Not sampled", "Drops that were counted but are in no sample, for there were too many a second.", "", "pps", []Query{{sumBy("instance", perSecond("sixpn_drop_events_lost_total")), "{{instance}}"}}},
		}},
		{"Since the tables were made", []Panel{
			{"Totals", "The reasons with the most packets.", Stat, "none", []Query{{"topk(10, " + sumBy("reason", of("sixpn_dropped_packets_total", `reason=~"$reason"`)) + ")", "{{reason}}"}}},
		}},
	},
}
