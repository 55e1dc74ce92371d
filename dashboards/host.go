package dashboards

var host = Dashboard{
	Name: "host", Title: "sixpn: host",
	Description: "One host or several: the agent, what its ports carry, how far the kernel is behind the store, and how full the tables are.",
	Rows: []Row{
		{"Now", []Panel{
			{"Build", "Which build runs on how many hosts.", Stat, "none", []Query{{sumBy("version", of("sixpn_build_info")), "{{version}}"}}},
			{"Since start", "Time since the agents began. Machines and traffic go on while an agent is away.", Stat, "s", []Query{{"time() - " + of("sixpn_agent_start_time_seconds"), "{{instance}}"}}},
			{"Started Machines", "Machines that run, of all apps.", Stat, "none", []Query{{sumBy("", of("sixpn_machines", `state="started"`)), ""}}},
			{"Changes not applied yet", "Revisions of the store that the kernel's tables do not have. Should return to 0 within a second.", Stat, "none", []Query{
				{of("sixpn_wanted_revision") + " - " + of("sixpn_applied_revision"), "{{instance}}"}}},
		}},
		{"Traffic", []Panel{
			{"Packets", "Forwarded packets by kind of port: in by the port that they came by, out by the one that they left by.", "", "pps", []Query{{sumBy("kind, direction", perSecond("sixpn_port_packets_total")), "{{kind}} {{direction}}"}}},
			{"Bytes", "The same in bytes, Ethernet headers included.", "", "Bps", []Query{{sumBy("kind, direction", perSecond("sixpn_port_bytes_total")), "{{kind}} {{direction}}"}}},
			{"Dropped packets", "Packets that did not go on. The dashboard Drops says why.", "", "pps", []Query{{sumBy("instance", perSecond("sixpn_dropped_packets_total")), "{{instance}}"}}},
			{"Ports", "Devices of the router.", "", "none", []Query{{sumBy("kind", of("sixpn_ports")), "{{kind}}"}}},
			{"Machines", "Machines by state.", "", "none", []Query{{sumBy("state", of("sixpn_machines")), "{{state}}"}}},
		}},
		{"Changes", []Panel{
			{"Propagation", "Time from the arrival of a change until the kernel's tables have it.", "", "s", []Query{
				{quantile(0.5, "", "sixpn_propagation_seconds"), "median"}, {quantile(0.99, "", "sixpn_propagation_seconds"), "99 %"}}},
			{"Revisions", "Changes of the store that are known and applied.", "", "none", []Query{
				{perSecond("sixpn_wanted_revision"), "wanted {{instance}}"}, {perSecond("sixpn_applied_revision"), "applied {{instance}}"}}},
			{"Failures", "Attempts in a row to bring the tables up to date that failed, and records that cannot be read.", "", "none", []Query{
				{of("sixpn_sync_failures"), "failures {{instance}}"}, {of("sixpn_unreadable_records"), "unreadable {{instance}}"}}},
			{"Behind the store", "Revisions that the agent has not heard of yet.", "", "none", []Query{{of("sixpn_store_watch_lag_revisions"), "{{instance}}"}}},
		}},
		{"Store", []Panel{
			{"Serving", "1 while the store serves and has a leader.", "", "none", []Query{{of("sixpn_store_up") + " * " + of("sixpn_store_has_leader"), "{{instance}}"}}},
			{"Database", "Size of the store's database, and where it takes no more writes.", "", "bytes", []Query{
				{of("sixpn_store_database_bytes"), "size {{instance}}"}, {of("sixpn_store_database_used_bytes"), "in use {{instance}}"}, {of("sixpn_store_database_limit_bytes"), "limit {{instance}}"}}},
			// A host without a member of the store has no times: ">= 0" leaves its NaN out.
			{"Time to disk", "99 % of the store's writes are on disk within this time.", "", "s", []Query{
				{"histogram_quantile(0.99, " + sumBy("instance, le", perSecond("etcd_disk_wal_fsync_duration_seconds_bucket")) + ") >= 0", "log {{instance}}"},
				{"histogram_quantile(0.99, " + sumBy("instance, le", perSecond("etcd_disk_backend_commit_duration_seconds_bucket")) + ") >= 0", "database {{instance}}"}}},
			{"Records", "Records of the whole fleet that the agent knows.", "", "none", []Query{{"max by (kind) (" + of("sixpn_store_records") + ")", "{{kind}}"}}},
		}},
		{"Kernel", []Panel{
			{"Tables in use", "How full the kernel's tables are. One that is full refuses what is new.", "", "percentunit", []Query{
				{"max by (table) (" + of("sixpn_table_entries") + " / " + of("sixpn_table_capacity_entries") + ")", "{{table}}"}}},
			{"Time a packet", "Mean time in the router's program. Flat at 0 while the sysctl kernel.bpf_stats_enabled is 0.", "", "s", []Query{
				{sumBy("program", perSecond("sixpn_program_run_seconds_total")) + " / (" + sumBy("program", perSecond("sixpn_program_runs_total")) + " > 0) or 0 * " + sumBy("program", perSecond("sixpn_program_runs_total")), "{{program}}"}}},
			{"CPU in programs", "Share of one CPU that the programs take, while the kernel measures them.", "", "percentunit", []Query{{sumBy("program", perSecond("sixpn_program_run_seconds_total")), "{{program}}"}}},
			{"CPU of the agent", "Share of one CPU that the agent's process takes.", "", "percentunit", []Query{{perSecond("process_cpu_seconds_total"), "{{instance}}"}}},
			{"Memory of the agent", "Resident memory of the agent's process.", "", "bytes", []Query{{of("process_resident_memory_bytes"), "{{instance}}"}}},
			{"Incomplete scrapes", "Parts of scrapes that could not be read.", "", "none", []Query{{sumBy("part", perSecond("sixpn_collect_errors_total")) + " or vector(0)", "{{part}}"}}},
		}},
	},
}
