package dashboards

const ofService = `org=~"$org",network=~"$network",app=~"$app"`

var flycast = Dashboard{
	Name: "flycast", Title: "sixpn: Flycast",
	Description: "Flows by service and backend, as the hosts of their clients see them, with their limits and refusals.",
	Variables:   []Variable{{"org", "sixpn_service_live_flows"}, {"network", "sixpn_service_live_flows"}, {"app", "sixpn_service_live_flows"}},
	Rows: []Row{
		{"Services", []Panel{
			{"Live flows", "Live flows by service.", "", "none", []Query{{sumBy("app, vip, protocol, port", of("sixpn_service_live_flows", ofService)), "{{app}} [{{vip}}]:{{port}}/{{protocol}}"}}},
			{"New flows", "Flows that clients began.", "", "cps", []Query{{sumBy("app, vip, protocol, port", perSecond("sixpn_service_flows_total", ofService)), "{{app}} [{{vip}}]:{{port}}/{{protocol}}"}}},
			{"Backends", "Backends by state: only ready ones take new flows, unhealthy ones when all are.", "", "none", []Query{{sumBy("app, port, state", of("sixpn_service_backends", ofService)), "{{app}} {{port}} {{state}}"}}},
			{"Use of the hard limit", "Live flows over what all backends together may have; only services with a limit.", "", "percentunit", []Query{
				{ratio(sumBy("app, vip, protocol, port", of("sixpn_service_live_flows", ofService)),
					sumBy("app, vip, protocol, port", of("sixpn_service_flow_limit", `limit="hard"`, ofService)+` * on (instance, vip, protocol, port) group_left `+of("sixpn_service_backends", `state="ready"`, ofService))),
					"{{app}} [{{vip}}]:{{port}}/{{protocol}}"}}},
		}},
		{"Backends", []Panel{
			{"Choices", "New flows by the backend that they were given to.", "", "cps", []Query{{sumBy("app, machine, port", perSecond("sixpn_backend_choices_total", `app=~"$app"`)), "{{app}} {{machine}} {{port}}"}}},
			{"Live flows by backend", "Live flows by the backend that has them.", "", "none", []Query{{sumBy("app, machine, port", of("sixpn_backend_live_flows", `app=~"$app"`)), "{{app}} {{machine}} {{port}}"}}},
		}},
		{"Limits of all hosts", []Panel{
			{"Shares", "Flows that a host's clients may have with a backend, of the hard limit of all hosts.", "", "none", []Query{
				{sumBy("instance, app, machine, port", of("sixpn_backend_share_flows", `app=~"$app"`)), "{{instance}} of {{app}} {{machine}} {{port}}"}}},
			{"Use of shares", "Live flows over what a host's clients may have now. At 1 the next flow waits for a larger share.", "", "percentunit", []Query{
				{ratio(sumBy("instance, app, machine, port", of("sixpn_backend_live_flows", `app=~"$app"`)), sumBy("instance, app, machine, port", of("sixpn_backend_share_flows", `app=~"$app"`))),
					"{{instance}} of {{app}} {{machine}} {{port}}"}}},
			{"Flows of other hosts", "Live flows that the host of backends was told of by each host with clients of them, and what that one may have.", "", "none", []Query{
				{of("sixpn_host_flows"), "{{host}} with {{instance}}"}, {of("sixpn_host_share_flows"), "{{host}} may have with {{instance}}"}}},
			{"Hosts that do not answer", "Backends of a host of which another one keeps a share while its agent is away, or does not get to, since it was lost.", "", "none", []Query{
				{of("sixpn_host_quiet_backends"), "{{host}} keeps of {{instance}}"}, {of("sixpn_host_fenced_backends"), "{{host}} is fenced off by {{instance}}"}}},
		}},
		{"Flow table", []Panel{
			{"Live flows of the host", "Flows in the table, and how many it can hold.", "", "none", []Query{
				{of("sixpn_flow_table_flows"), "live {{instance}}"}, {of("sixpn_flow_table_capacity_flows"), "capacity {{instance}}"}}},
			{"Refusals", "Packets that asked for a new flow in vain, by what was used up.", "", "pps", []Query{{sumBy("limit", perSecond("sixpn_flow_refusals_total")), "{{limit}}"}}},
			{"Ends", "Flows that timed out, and flows whose backend was gone before they ended.", "", "cps", []Query{
				{sumBy("", perSecond("sixpn_flows_expired_total")), "timed out"}, {sumBy("", perSecond("sixpn_flows_orphaned_total")), "backend gone"}}},
		}},
	},
}
