package agent

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/flycast"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/maps"
	"github.com/sixpn/sixpn/reconcile"
	"github.com/sixpn/sixpn/state"
)

// field is one setting of an agent. Its key in the file names the flag (--mtu) and
// the environment variable (SIXPN_AGENT_MTU) too.
type field struct {
	key      string
	flagName string // where it is not the key with hyphens
	def      string // in force when nobody says anything, as Set takes it
	derived  string // for people: what it is then, where that depends on something
	example  string // for the reference
	doc      string // for people, without a full stop
	place    bool   // says which agent is meant: "agent reset" has it too
	secret   bool   // not shown
	alone    bool   // not in the example file: it does not go with another setting there
	live     bool   // SIGHUP takes it up from the file; the others wait for a restart
	of       func(*Config) value
}

const envPrefix = "SIXPN_AGENT_"

func (f field) flag() string {
	if f.flagName != "" {
		return f.flagName
	}
	return strings.ReplaceAll(f.key, "_", "-")
}

// wrong is what is said of a value that cannot be taken, and that of a secret never has it.
func (f field) wrong(from, value string, err error) *ConfigError {
	if f.secret {
		value = ""
	}
	return &ConfigError{From: from, Key: f.key, Value: value, Message: err.Error()}
}

func (f field) env() string { return envPrefix + strings.ToUpper(f.key) }

// fields is every setting, in the order of the reference. Nothing else knows a key, a
// default or what it means.
var fields = []field{
	{key: "name", def: api.DefaultName, place: true, doc: "name of this agent, of which several may run on one host: it names the socket, the pins and the private namespace",
		example: "edge", of: func(c *Config) value { return text{&c.Name, checkName} }},
	{key: "state_dir", derived: stateParent + "/NAME", place: true, doc: "directory of the durable state",
		example: "/var/lib/sixpn/edge", of: func(c *Config) value { return text{&c.StateDir, absolute} }},
	{key: "run_dir", def: defaultRunDir, place: true, doc: "directory of the sockets and pinned namespaces, which all agents of a host share",
		of: func(c *Config) value { return text{&c.RunDir, absolute} }},
	{key: "pin_dir", def: defaultPinDir, place: true, doc: "directory of the pinned eBPF objects, under a mounted bpffs, which all agents of a host share",
		of: func(c *Config) value { return text{&c.PinDir, absolute} }},
	{key: "cgroup", derived: "the agent's own", place: true, doc: "cgroup in which sixpn-NAME, with those of the Machines, is made",
		example: "/sys/fs/cgroup/sixpn", of: func(c *Config) value { return text{&c.Cgroup, absolute} }},
	{key: "host_name", derived: "that of the host", doc: "name of this host in the state",
		example: "host-1", of: func(c *Config) value { return text{&c.HostName, checkHostName} }},
	{key: "region", def: defaultRegion, doc: "region of this host, by its code (see \"sixpn platform regions\")",
		example: "fra", of: func(c *Config) value { return text{to: &c.Region} }},
	{key: "regions", derived: "none", doc: "regions beside the built-in ones: code, name, latitude and longitude in degrees north and east; as a flag or variable CODE,LATITUDE,LONGITUDE,NAME",
		example: `lab,52.5,13.4,Our cellar`, of: func(c *Config) value { return &regionList{to: &c.Regions} }},
	{key: "underlay", derived: "none: this host is alone", doc: "address, and port if it is not 51821, at which other hosts reach this one: UDP for the mesh, TCP for joining, and the two TCP ports above for the store",
		example: "192.0.2.1", of: func(c *Config) value { return text{&c.Underlay, checkUnderlay} }},
	{key: "mesh", def: string(state.MeshWireGuard), doc: "how packets travel to other hosts, the same for every host of a fleet: wireguard, encrypted; or native, as they are, over a fabric that is trusted and routes the prefix of each host to its underlay address, which must be IPv6",
		of: func(c *Config) value {
			return text{&c.Mesh, oneOf(string(state.MeshWireGuard), string(state.MeshNative))}
		}},
	{key: "join", derived: "none", secret: true, doc: "token of \"sixpn hosts invite\" by which this host joins a fleet; better in the file or the environment than a flag, which others can see; once it has joined, the token is not looked at any more",
		of: func(c *Config) value { return text{to: &c.Join} }},
	{key: "store", derived: "that of the fleet", alone: true, doc: "URLs of an etcd cluster that holds the state instead of the fleet's own store",
		example: "https://192.0.2.1:2379", of: func(c *Config) value { return &list{to: &c.Store, parse: checkStore} }},
	{key: "store_cert", derived: "none", alone: true, doc: "file of the client certificate for that cluster, PEM",
		example: "/etc/sixpn/client.pem", of: func(c *Config) value { return text{&c.StoreCert, absolute} }},
	{key: "store_key", derived: "the certificate's file", alone: true, doc: "file of the key that belongs to it",
		example: "/etc/sixpn/client-key.pem", of: func(c *Config) value { return text{&c.StoreKey, absolute} }},
	{key: "store_ca", derived: "those that the host trusts", alone: true, doc: "file of the authorities that may have signed the certificates of that cluster",
		example: "/etc/sixpn/ca.pem", of: func(c *Config) value { return text{&c.StoreCA, absolute} }},
	{key: "store_user", derived: "none", alone: true, secret: true, doc: "user of that cluster and password, USER:PASSWORD; better in the file or the environment than a flag, which others can see",
		example: "sixpn:secret", of: func(c *Config) value { return text{to: &c.StoreUser} }},
	{key: "certificate_life", def: "720h0m0s", doc: "life of the certificate by which other hosts know this one; it is renewed when a third is left",
		of: func(c *Config) value { return span{&c.Timeouts.Certificate} }},
	{key: "heartbeat_interval", def: defaultSpan(state.DefaultPresenceInterval), doc: "time from one sign of life of this host, in the store, to the next",
		of: func(c *Config) value { return span{&c.Timeouts.Heartbeat} }},
	{key: "round_trip_interval", def: "2s", doc: "time from one echo request to another host, by which it is known how far that is, to the next; longer with more than 200 hosts",
		of: func(c *Config) value { return span{&c.Timeouts.RoundTrip} }},
	{key: "load_interval", def: "100ms", doc: "time from one telling of changed load, of services with limits, to another host to the next; a share that a connection waits for is asked for at once",
		of: func(c *Config) value { return span{&c.Timeouts.Load} }},
	{key: "call_timeout", def: "2s", doc: "time that another host's agent may take to answer when somebody asks how the hosts do",
		of: func(c *Config) value { return span{&c.Timeouts.Call} }},
	{key: "host_expiry", def: defaultSpan(state.DefaultPresenceTTL), doc: "time after its last sign of life when this host counts as gone: no new flow goes to its Machines, and no name leads to them; the same for every host of a fleet",
		of: func(c *Config) value { return span{&c.Timeouts.HostExpiry} }},
	{key: "connect_timeout", def: "3s", doc: "longest wait for a connection to another host's agent, which is asked for what only it can do, such as to run a command in a Machine of its",
		of: func(c *Config) value { return span{&c.Timeouts.Connect} }},
	{key: "call_silence", def: "5s", doc: "time after which another host's agent that is at work on such a request and says nothing is asked whether it is still there, and how long it may take to say so",
		of: func(c *Config) value { return span{&c.Timeouts.Silence} }},
	{key: "members_interval", def: "30s", doc: "time from one look at where the members of the fleet's store are to the next",
		of: func(c *Config) value { return span{&c.Timeouts.Members} }},
	{key: "member_replacement", def: "5m0s", doc: "time that a host which holds the fleet's store may be away before another host takes its place",
		of: func(c *Config) value { return span{&c.Timeouts.Replace} }},
	{key: "mtu", derived: fmt.Sprintf("what the mesh takes, or %d for a host that is alone", machine.DefaultMTU), doc: "largest packet of Machines that ask for none, in bytes",
		example: "1400", of: func(c *Config) value { return number[uint16]{&c.MTU, machine.MinMTU, machine.MaxMTU} }},
	{key: "stop_timeout", def: "5s", doc: "time between a Machine's stop signal and SIGKILL, for Machines that say none",
		example: "30s", of: func(c *Config) value { return span{&c.Timeouts.Stop} }},
	{key: "upstreams", flagName: "upstream", derived: "those of /etc/resolv.conf", doc: "resolvers for all names outside .internal and .flycast, by address, with a port or without, the preferred first",
		example: "192.0.2.53,[2001:db8::53]:5353", of: func(c *Config) value { return &list{to: &c.Upstreams, parse: upstream} }},
	{key: "metrics_listen", def: defaultMetricsListen, doc: "address and port of the metrics for Prometheus, or off",
		example: "[::1]:9464", of: func(c *Config) value { return text{&c.MetricsListen, hostPort(metricsOff)} }},
	{key: "flow_table_size", derived: "that of the build", doc: "Flycast flows that this host can hold",
		example: "262144", of: func(c *Config) value { return number[uint32]{&c.FlowTableSize, 1, math.MaxInt32} }},
	{key: "machine_flows", def: fmt.Sprint(reconcile.DefaultSettings.MachineFlows), doc: "Flycast flows that one Machine may hold",
		of: func(c *Config) value { return number[uint32]{&c.MachineFlows, 1, math.MaxInt32} }},
	{key: "network_flows", def: fmt.Sprint(reconcile.DefaultSettings.NetworkFlows), doc: "Flycast flows that all Machines of a network may hold on this host",
		of: func(c *Config) value { return number[uint32]{&c.NetworkFlows, 1, math.MaxInt32} }},
	{key: "flow_timeout_syn", def: defaultSpan(maps.DefaultTimeouts.SYN), doc: "life of a TCP flow that nobody answered",
		of: func(c *Config) value { return span{&c.Timeouts.Syn} }},
	{key: "flow_timeout_established", def: defaultSpan(maps.DefaultTimeouts.Established), doc: "life of an idle TCP flow",
		of: func(c *Config) value { return span{&c.Timeouts.Established} }},
	{key: "flow_timeout_closing", def: defaultSpan(maps.DefaultTimeouts.Closing), doc: "life of a closed TCP flow",
		of: func(c *Config) value { return span{&c.Timeouts.Closing} }},
	{key: "flow_timeout_udp", def: defaultSpan(maps.DefaultTimeouts.UDP), doc: "life of an idle UDP flow",
		of: func(c *Config) value { return span{&c.Timeouts.UDP} }},
	{key: "expiry_interval", def: defaultSpan(flycast.DefaultPeriod), doc: "time from one pass over the flow table to the next",
		of: func(c *Config) value { return span{&c.Timeouts.Expiry} }},
	{key: "reuse_grace", def: defaultSpan(maps.DefaultGrace), doc: "time before a table element that nothing points to is used again",
		of: func(c *Config) value { return span{&c.Timeouts.Grace} }},
	{key: "repair_interval", def: "10s", doc: "time from one look for lost pins to the next",
		of: func(c *Config) value { return span{&c.Timeouts.Repair} }},
	{key: "event_rate", derived: "that of the build", doc: "sampled drops that one CPU may report a second",
		example: "100", of: func(c *Config) value { return number[uint32]{&c.EventRate, 1, math.MaxInt32} }},
	{key: "reset_flows", def: "false", doc: "give up established Flycast flows if this build cannot read them",
		of: func(c *Config) value { return boolean{&c.ResetFlows} }},
	{key: "detach_on_exit", def: "false", doc: "at the agent's end stop the Machines and remove everything from the kernel",
		of: func(c *Config) value { return boolean{&c.DetachOnExit} }},
	{key: "log_level", def: "info", place: true, live: true, doc: "what is logged, and what is worse: debug, info, warn or error",
		example: "debug", of: func(c *Config) value { return text{&c.LogLevel, oneOf("debug", "info", "warn", "error")} }},
	{key: "log_format", def: "text", place: true, doc: "how it is logged: text or json",
		example: "json", of: func(c *Config) value { return text{&c.LogFormat, oneOf("text", "json")} }},
}

func defaultSpan(d time.Duration) string { return d.String() }

// isField says whether there is a setting of this key.
func isField(key string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return f.key == key })
}
