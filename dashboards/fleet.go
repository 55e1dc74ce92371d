package dashboards

var fleet = Dashboard{
	Name: "fleet", Title: "sixpn: fleet",
	Description: "Several hosts: who is there, the ways between them, how far each is behind, the store that they share, and what they trust each other by.",
	Rows: []Row{
		{"Hosts", []Panel{
			{"Present", "Hosts by state, as most of them see it.", Stat, "none", []Query{{"quantile by (state) (0.5, " + of("sixpn_hosts") + ")", "{{state}}"}}},
			{"Last tables stay", "Hosts that keep their last tables, whatever the store says.", Stat, "none", []Query{{sumBy("", of("sixpn_store_alarm")), ""}}},
			{"Builds", "Which build runs on how many hosts.", Stat, "none", []Query{{sumBy("version", of("sixpn_build_info")), "{{version}}"}}},
			{"Presence", "Part of the other hosts that see a host as present: 1 all, 0 none.", "", "percentunit", []Query{{"avg by (host) (" + of("sixpn_host_present") + ")", "{{host}}"}}},
		}},
		{"Ways between hosts", []Panel{
			{"Round trip", "Smoothed round trip of echo requests through the mesh.", "", "s", []Query{{of("sixpn_host_round_trip_seconds"), "{{instance}} to {{host}}"}}},
			{"Deviation", "Mean deviation of the round trip.", "", "s", []Query{{of("sixpn_host_round_trip_deviation_seconds"), "{{instance}} to {{host}}"}}},
			{"Loss", "Part of the latest echo requests without an answer.", "", "percentunit", []Query{{of("sixpn_host_echo_loss_ratio"), "{{instance}} to {{host}}"}}},
			{"Age of the handshake", "Time since the mesh's last handshake; with traffic there is one every two minutes.", "", "s", []Query{
				{"clamp_min(time() - " + of("sixpn_host_last_handshake_time_seconds") + ", 0)", "{{instance}} to {{host}}"}}},
		}},
		{"Changes", []Panel{
			{"Behind", "Revisions of the store that a host's kernel does not have, and another host's has.", "", "none", []Query{
				{"scalar(max(" + of("sixpn_applied_revision") + ")) - " + of("sixpn_applied_revision"), "{{instance}}"}}},
			{"Not applied yet", "Revisions that a host knows and its kernel does not have.", "", "none", []Query{{of("sixpn_wanted_revision") + " - " + of("sixpn_applied_revision"), "{{instance}}"}}},
		}},
		{"Store", []Panel{
			{"Voters", "Voters of the store that answer, as each host with a member sees it, and how many there are. It takes writes while more than half answer.", "", "none", []Query{
				{sumBy("instance", of("sixpn_store_voter_up")), "answer {{instance}}"}, {"count by (instance) (" + of("sixpn_store_voter_up") + ")", "all {{instance}}"}}},
			{"Voters by host", "1 while a voter answers those that have a member too.", "", "none", []Query{{"min by (host) (" + of("sixpn_store_voter_up") + ")", "{{host}}"}}},
			{"Reached by hosts", "1 while a host reaches the store and that has a leader.", "", "none", []Query{{of("sixpn_store_up") + " * " + of("sixpn_store_has_leader"), "{{instance}}"}}},
			{"Revision of the store", "The latest, as each host sees it.", "", "none", []Query{{of("sixpn_store_revision"), "{{instance}}"}}},
		}},
		{"Trust", []Panel{
			{"Certificate", "Part of its life that is left; it is renewed at a third.", "", "percentunit", []Query{
				{"(" + of("sixpn_certificate_end_time_seconds") + " - time()) / (" + of("sixpn_certificate_end_time_seconds") + " - " + of("sixpn_certificate_start_time_seconds") + ")", "{{instance}}"}}},
			{"Clock", "How far a host's clock is from the middle of all, either way.", "", "s", []Query{
				{"abs(" + offset + " - scalar(quantile(0.5, " + offset + ")))", "{{instance}}"}}},
		}},
	},
}

// offset is how far a host's clock is ahead of that of Prometheus, which is the same for
// all: it says when it asked.
var offset = "(" + of("sixpn_clock_time_seconds") + " - timestamp(" + of("sixpn_clock_time_seconds") + "))"
