package dashboards

const (
	inNetwork = `org=~"$org",network=~"$network"`
	inOrg     = `org=~"$org"`
	ofApp     = `org=~"$org",app=~"$app"`
)

var network = Dashboard{
	Name: "network", Title: "sixpn: network and app",
	Description: "What the Machines of an org's networks send and receive, and how its apps do.",
	Variables:   []Variable{{"org", "sixpn_machines"}, {"network", "sixpn_port_packets_total"}, {"app", "sixpn_machines"}},
	Rows: []Row{
		{"Network", []Panel{
			{"Packets", "Forwarded packets of the network's Machines: in is what they sent.", "", "pps", []Query{
				{sumBy("org, network, direction", perSecond("sixpn_port_packets_total", `kind="machine"`, inNetwork)), "{{org}} {{network}} {{direction}}"}}},
			{"Bytes", "The same in bytes, Ethernet headers included.", "", "Bps", []Query{
				{sumBy("org, network, direction", perSecond("sixpn_port_bytes_total", `kind="machine"`, inNetwork)), "{{org}} {{network}} {{direction}}"}}},
			{"Dropped packets", "Packets that the network's Machines sent and that did not go on.", "", "pps", []Query{
				{sumBy("org, network", perSecond("sixpn_port_dropped_packets_total", `kind="machine"`, inNetwork)), "{{org}} {{network}}"}}},
			{"Flycast flows", "Live flows of the network's clients, and how many they may have on a host.", "", "none", []Query{
				{sumBy("org, network", of("sixpn_network_live_flows", inNetwork)), "live {{org}} {{network}}"},
				{"max by (org, network) (" + of("sixpn_network_flow_limit", inNetwork) + ")", "limit {{org}} {{network}}"}}},
			{"Refused flows", "New flows that found their Machine's or their network's quota used up.", "", "cps", []Query{
				{sumBy("org, network, quota", perSecond("sixpn_quota_refusals_total", inNetwork)), "{{org}} {{network}} {{quota}}"}}},
		}},
		{"App", []Panel{
			{"Machines", "The app's Machines by state.", "", "none", []Query{{sumBy("app, state", of("sixpn_machines", ofApp)), "{{app}} {{state}}"}}},
			{"Checks", "What the health checks of the app's Machines said last.", "", "none", []Query{
				{sumBy("app, check, status", of("sixpn_checks", ofApp)) + " or vector(0)", "{{app}} {{check}} {{status}}"}}},
			{"New flows", "Flows that clients of the network began with the app.", "", "cps", []Query{
				{sumBy("app, protocol, port", perSecond("sixpn_service_flows_total", `app=~"$app"`, inOrg)), "{{app}} {{port}}/{{protocol}}"}}},
			{"Relayed ports", "Ports that listen with IPv4 only: there the client's address is not seen.", "", "none", []Query{
				{sumBy("app", of("sixpn_relayed_ports", ofApp)) + " or vector(0)", "{{app}}"}}},
		}},
	},
}
