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
		{"Flow table", []Panel{
			{"Live flows of the host", "Flows in the table, and how many it can hold.", "", "none", []Query{
				{of("sixpn_flow_table_flows"), "live {{instance}}"}, {of("sixpn_flow_table_capacity_flows"), "capacity {{instance}}"}}},
			{"Refusals", "Packets that asked for a new flow in vain, by what was used up.", "", "pps", []Query{{sumBy("limit", perSecond("sixpn_flow_refusals_total")), "{{limit}}"}}},
			{"Ends", "Flows that timed out, and flows whose backend was gone before they ended.", "", "cps", []Query{
				{sumBy("", perSecond("sixpn_flows_expired_total")), "timed out"}, {sumBy("", perSecond("sixpn_flows_orphaned_total")), "backend gone"}}},
		}},
	},
}
