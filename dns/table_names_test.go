package dns

import "fmt"

// nameRows are the names that hold addresses.
var nameRows = []example{
	{title: "an app: its started Machines only", want: expect("NOERROR aa", webMachines...)},
	{title: "another case", name: "wEb.InterNAL.", want: expect("NOERROR aa",
		"wEb.InterNAL. AAAA fdaa:0:863:a7b:bea:0:1:2", "wEb.InterNAL. AAAA fdaa:0:863:a7b:bea:0:2:2")},
	{title: "an app of another network", asker: globex, want: missing},
	{title: "that app, asked from there", name: "db.internal.", asker: globex,
		want: expect("NOERROR aa", "db.internal. AAAA fdaa:0:22b7:a7b:bea:0:8:2")},
	{title: "an app reached only by an allocation", name: "db.internal.", want: missing},
	{title: "an app without a started Machine", name: "api.internal.", want: empty},
	{title: "no such app", name: "nope.internal.", want: missing},
	{title: "a name below an app", name: "a.b.web.internal.", want: missing},
	{title: "an escaped dot is no dot", name: `web\.internal.`, want: expect("REFUSED")},
	{title: "an escaped dot in a label", name: `x\.web.internal.`, want: missing},
	{title: "the zone", name: "internal.", want: empty},
	{title: "Flycast", name: "web.flycast.", want: expect("NOERROR aa", "web.flycast. AAAA fdaa:0:863:0:1::3")},
	{title: "Flycast across networks", name: "db.flycast.",
		want: expect("NOERROR aa", "db.flycast. AAAA fdaa:0:863:0:1::7")},
	{title: "Flycast in the app's own network", name: "db.flycast.", asker: globex,
		want: expect("NOERROR aa", "db.flycast. AAAA fdaa:0:22b7:0:1::1")},
	{title: "Flycast of another network", name: "web.flycast.", asker: globex,
		want: expect("NXDOMAIN aa", nothing("flycast."))},
	{title: "Flycast without an address", name: "api.flycast.", want: expect("NXDOMAIN aa", nothing("flycast."))},
	{title: "the list is not under the other zone", name: "_apps.flycast.",
		want: expect("NXDOMAIN aa", nothing("flycast."))},
	{title: "the root", name: ".", want: expect("REFUSED")},
	{title: "another domain", name: "example.com.", want: expect("REFUSED")},
	{title: "a domain that only ends alike", name: "web.notinternal.", want: expect("REFUSED")},

	// Below an app.
	{title: "all regions", name: "global.web.internal.", want: of("global.web", 1, 2)},
	{title: "all regions, none started", name: "global.api.internal.", want: empty},
	{title: "a region", name: "fra.web.internal.", want: of("fra.web", 1)},
	{title: "a region in capitals", name: "IAD.Web.internal.", want: expect("NOERROR aa", "IAD.Web.internal. AAAA fdaa:0:863:a7b:bea:0:2:2")},
	{title: "a region where none is started", name: "nrt.web.internal.", want: empty},
	{title: "a region where the app is not", name: "gru.web.internal.", want: empty},
	{title: "a region where only a hidden Machine is", name: "syd.web.internal.", want: empty},
	{title: "no region", name: "xxx.web.internal.", want: missing},
	{title: "a name below a region", name: "a.fra.web.internal.", want: missing},
	{title: "a Machine", name: "00000000000001.vm.web.internal.", want: of("00000000000001.vm.web", 1)},
	{title: "a stopped Machine", name: "00000000000003.vm.web.internal.", want: empty},
	{title: "a Machine of another app", name: "00000000000007.vm.web.internal.", want: missing},
	{title: "a hidden Machine", name: "00000000000009.vm.web.internal.", want: missing},
	{title: "no Machine", name: "0000000000000f.vm.web.internal.", want: missing},
	{title: "a Machine of another network", name: "00000000000008.vm.db.internal.", want: missing},
	{title: "a Machine whose record is of two networks", name: "0000000000000b.vm.web.internal.", want: missing},
	{title: "that Machine, asked from its network", name: "0000000000000b.vm.web.internal.", asker: globex, want: missing},
	{title: "what Machines are below", name: "vm.web.internal.", want: empty},
	{title: "the process group of those without one", name: "app.process.web.internal.", want: of("app.process.web", 1)},
	{title: "a process group", name: "worker.process.web.internal.", want: of("worker.process.web", 2)},
	{title: "a process group that is stopped", name: "cron.process.web.internal.", want: empty},
	{title: "no process group", name: "nope.process.web.internal.", want: missing},
	{title: "what process groups are below", name: "process.web.internal.", want: empty},

	// Nearest.
	{title: "the nearest", name: "top1.nearest.of.web.internal.", want: of("top1.nearest.of.web", 1)},
	{title: "the two nearest", name: "top2.nearest.of.web.internal.", want: of("top2.nearest.of.web", 1, 2)},
	{title: "more than there are", name: "top4294967295.nearest.of.web.internal.", want: of("top4294967295.nearest.of.web", 1, 2)},
	{title: "capitals", name: "Top1.Nearest.Of.web.internal.",
		want: expect("NOERROR aa", "Top1.Nearest.Of.web.internal. AAAA fdaa:0:863:a7b:bea:0:1:2")},
	{title: "the nearest of none", name: "top1.nearest.of.api.internal.", want: empty},
	{title: "the nearest of another network's", name: "top1.nearest.of.db.internal.", want: missing},
	{title: "the nearest none", name: "top0.nearest.of.web.internal.", want: missing},
	{title: "a number in a second spelling", name: "top01.nearest.of.web.internal.", want: missing},
	{title: "a number with a sign", name: "top+1.nearest.of.web.internal.", want: missing},
	{title: "a number beyond all", name: "top4294967296.nearest.of.web.internal.", want: missing},
	{title: "no number", name: "top.nearest.of.web.internal.", want: missing},
	{title: "a name below the nearest", name: "a.top1.nearest.of.web.internal.", want: missing},
	{title: "what the nearest are below", name: "nearest.of.web.internal.", want: empty},
	{title: "what that is below", name: "of.web.internal.", want: empty},

	// Metadata.
	{title: "metadata, the case does not count", name: "primary.role.kv._metadata.web.internal.", want: of("primary.role.kv._metadata.web", 1, 2)},
	{title: "metadata in capitals", name: "PRIMARY.Role.kv._metadata.web.internal.", want: expect("NOERROR aa",
		"PRIMARY.Role.kv._metadata.web.internal. AAAA fdaa:0:863:a7b:bea:0:1:2", "PRIMARY.Role.kv._metadata.web.internal. AAAA fdaa:0:863:a7b:bea:0:2:2")},
	{title: "a value with dots", name: "1.2.3.version.kv._metadata.web.internal.", want: of("1.2.3.version.kv._metadata.web", 1)},
	{title: "part of that value", name: "2.3.version.kv._metadata.web.internal.", want: empty},
	{title: "a key with dots and a slash, a value with a blank", name: `web\032server.app.kubernetes.io/name.kv._metadata.web.internal.`,
		want: of(`web\032server.app.kubernetes.io/name.kv._metadata.web`, 1)},
	{title: "dots that split two ways", name: "a.b.c.kv._metadata.web.internal.", want: of("a.b.c.kv._metadata.web", 1, 2)},
	{title: "a key", name: "role.kv._metadata.web.internal.", want: empty},
	{title: "another value", name: "replica.role.kv._metadata.web.internal.", want: missing},
	{title: "the value of a hidden Machine", name: "hidden.role.kv._metadata.web.internal.", want: missing},
	{title: "another key", name: "primary.rank.kv._metadata.web.internal.", want: missing},
	{title: "an empty value is no name", name: "empty.kv._metadata.web.internal.", want: missing},
	{title: "nor is one with an empty label", name: "wrong.kv._metadata.web.internal.", want: missing},
	{title: "nor one that is too long", name: "long.kv._metadata.web.internal.", want: missing},
	{title: "an escaped dot is not a value's", name: `1\.2.3.version.kv._metadata.web.internal.`, want: missing},
	{title: "a stopped Machine's metadata", name: "cron.fly_process_group.kv._metadata.web.internal.", want: empty},
	{title: "what metadata is below", name: "kv._metadata.web.internal.", want: empty},
	{title: "what that is below", name: "_metadata.web.internal.", want: empty},
	{title: "of an app without Machines that are named", name: "kv._metadata.ghost.internal.", want: empty},

	// Of the network.
	{title: "the API", name: "_api.internal.", want: expect("NOERROR aa", "_api.internal. AAAA fdaa:0:863::3")},
	{title: "the API, asked from elsewhere", name: "_API.internal.", asker: globex,
		want: expect("NOERROR aa", "_API.internal. AAAA fdaa:0:22b7::3")},
	{title: "a peer", name: "laptop._peer.internal.", want: missing},
	{title: "no name of the network", name: "_nope.internal.", want: missing},
	{title: "a name below Flycast", name: "a.web.flycast.", want: expect("NXDOMAIN aa", nothing("flycast."))},
	{title: "all of Flycast", name: "flycast.", want: expect("NOERROR aa", nothing("flycast."))},
}

// of is the addresses of some Machines of web under a name of theirs.
func of(name string, machines ...int) string {
	var records []string
	for _, m := range machines {
		records = append(records, fmt.Sprintf("%s.internal. AAAA fdaa:0:863:a7b:bea:0:%x:2", name, m))
	}
	return expect("NOERROR aa", records...)
}
