package dns

import (
	"strings"

	miekg "github.com/miekg/dns"
)

// listRows are the names that hold text.
var listRows = []example{
	{title: "Machines", name: "vms.web.internal.", rrtype: miekg.TypeTXT,
		want: expect("NOERROR aa", `vms.web.internal. TXT "00000000000001 fra,00000000000002 iad"`)},
	{title: "Machines of an app without", name: "vms.api.internal.", rrtype: miekg.TypeTXT, want: empty},
	{title: "Machines of no app", name: "vms.nope.internal.", rrtype: miekg.TypeTXT, want: missing},
	{title: "Machines of another network", name: "vms.db.internal.", rrtype: miekg.TypeTXT, want: missing},
	{title: "AAAA of the Machines", name: "vms.web.internal.", want: empty},
	{title: "A of the Machines", name: "vms.web.internal.", rrtype: miekg.TypeA, want: empty},
	{title: "Machines in any state", name: "all.vms.web.internal.", rrtype: miekg.TypeTXT, want: expect("NOERROR aa",
		`all.vms.web.internal. TXT "00000000000001 fra,00000000000002 iad,00000000000003 nrt,00000000000004 iad,00000000000005 fra,00000000000006 fra,0000000000000c fra"`)},
	{title: "regions", name: "regions.web.internal.", rrtype: miekg.TypeTXT,
		want: expect("NOERROR aa", `regions.web.internal. TXT "fra,iad"`)},
	{title: "regions of Machines in any state", name: "all.regions.web.internal.", rrtype: miekg.TypeTXT,
		want: expect("NOERROR aa", `all.regions.web.internal. TXT "fra,iad,nrt"`)},
	{title: "regions of an app without a started Machine", name: "regions.api.internal.", rrtype: miekg.TypeTXT, want: empty},
	{title: "all regions of it", name: "all.regions.api.internal.", rrtype: miekg.TypeTXT,
		want: expect("NOERROR aa", `all.regions.api.internal. TXT "fra"`)},
	{title: "no such list", name: "all.web.internal.", rrtype: miekg.TypeTXT, want: missing},
	{title: "no list of all apps", name: "all._apps.internal.", rrtype: miekg.TypeTXT, want: missing},

	{title: "apps", name: "_apps.internal.", rrtype: miekg.TypeTXT,
		want: expect("NOERROR aa", `_apps.internal. TXT "web"`)},
	{title: "apps of the other network", name: "_apps.internal.", rrtype: miekg.TypeTXT, asker: globex,
		want: expect("NOERROR aa", `_apps.internal. TXT "db"`)},
	{title: "apps of an empty network", name: "_apps.internal.", rrtype: miekg.TypeTXT, asker: vacant, want: empty},
	{title: "AAAA of the apps", name: "_apps.internal.", want: empty},
	{title: "peers", name: "_peer.internal.", rrtype: miekg.TypeTXT, want: empty},
	{title: "instances", name: "_instances.internal.", rrtype: miekg.TypeTXT, want: expect("NOERROR aa",
		`_instances.internal. TXT "instance=00000000000001,app=web,ip=fdaa:0:863:a7b:bea:0:1:2,region=fra;instance=00000000000002,app=web,ip=fdaa:0:863:a7b:bea:0:2:2,region=iad"`)},
	{title: "instances of the other network", name: "_instances.internal.", rrtype: miekg.TypeTXT, asker: globex,
		want: expect("NOERROR aa", `_instances.internal. TXT "instance=00000000000008,app=db,ip=fdaa:0:22b7:a7b:bea:0:8:2,region=ord"`)},
	{title: "instances of an empty network", name: "_instances.internal.", rrtype: miekg.TypeTXT, asker: vacant, want: empty},
	{title: "instances in any state, in strings of whole ones", name: "all._instances.internal.", rrtype: miekg.TypeTXT,
		change: func(m *miekg.Msg) { m.SetEdns0(MaxUDP, false) }, dig: []string{"+edns=0"}, want: expect("NOERROR aa",
			`all._instances.internal. TXT "instance=00000000000007,app=api,ip=fdaa:0:863:a7b:bea:0:7:2,region=fra;`+
				`instance=00000000000001,app=web,ip=fdaa:0:863:a7b:bea:0:1:2,region=fra;instance=00000000000002,app=web,ip=fdaa:0:863:a7b:bea:0:2:2,region=iad;" `+
				`"instance=00000000000003,app=web,ip=fdaa:0:863:a7b:bea:0:3:2,region=nrt;instance=00000000000004,app=web,ip=fdaa:0:863:a7b:bea:0:4:2,region=iad;`+
				`instance=00000000000005,app=web,ip=fdaa:0:863:a7b:bea:0:5:2,region=fra;" `+
				`"instance=00000000000006,app=web,ip=fdaa:0:863:a7b:bea:0:6:2,region=fra;instance=0000000000000c,app=web,ip=fdaa:0:863:a7b:bea:0:c:2,region=fra"`)},
}

// reverseRows are the names of addresses.
var reverseRows = []example{
	{title: "a Machine's address", name: arpa("fdaa:0:863:a7b:bea:0:1:2"), rrtype: miekg.TypePTR,
		want: pointer("fdaa:0:863:a7b:bea:0:1:2", "00000000000001.vm.web.internal.")},
	{title: "another of its addresses", name: arpa("fdaa:0:863:a7b:bea:0:1:ffff"), rrtype: miekg.TypePTR,
		want: pointer("fdaa:0:863:a7b:bea:0:1:ffff", "00000000000001.vm.web.internal.")},
	{title: "an address in capitals", name: strings.ToUpper(arpa("fdaa:0:863:a7b:bea:0:1:2")), rrtype: miekg.TypePTR,
		want: expect("NOERROR aa", strings.ToUpper(arpa("fdaa:0:863:a7b:bea:0:1:2"))+" PTR 00000000000001.vm.web.internal.")},
	{title: "a stopped Machine's", name: arpa("fdaa:0:863:a7b:bea:0:3:2"), rrtype: miekg.TypePTR, want: unnamed},
	{title: "a hidden Machine's", name: arpa("fdaa:0:863:a7b:bea:0:9:2"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "a Machine's of another network", name: arpa("fdaa:0:22b7:a7b:bea:0:8:2"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "it, asked from there", name: arpa("fdaa:0:22b7:a7b:bea:0:8:2"), rrtype: miekg.TypePTR, asker: globex,
		want: pointer("fdaa:0:22b7:a7b:bea:0:8:2", "00000000000008.vm.db.internal.")},
	{title: "nobody's address", name: arpa("fdaa:0:863:a7b:bea:0:77:2"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "the agent's", name: arpa("fdaa:0:863:a7b:bea::1"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "a Flycast address", name: arpa("fdaa:0:863:0:1::3"), rrtype: miekg.TypePTR, want: pointer("fdaa:0:863:0:1::3", "web.flycast.")},
	{title: "a Flycast address of another org's app", name: arpa("fdaa:0:863:0:1::7"), rrtype: miekg.TypePTR,
		want: pointer("fdaa:0:863:0:1::7", "db.flycast.")},
	{title: "a Flycast address of another network", name: arpa("fdaa:0:22b7:0:1::1"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "a Flycast address that nobody has", name: arpa("fdaa:0:863:0:1::4"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "the resolver", name: arpa("fdaa::3"), rrtype: miekg.TypePTR, want: pointer("fdaa::3", "_api.internal.")},
	{title: "the network's resolver", name: arpa("fdaa:0:863::3"), rrtype: miekg.TypePTR, want: pointer("fdaa:0:863::3", "_api.internal.")},
	{title: "another network's resolver", name: arpa("fdaa:0:22b7::3"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "another type", name: arpa("fdaa:0:863:a7b:bea:0:1:2"), want: unnamed},
	{title: "part of an address", name: part("fdaa:0:863:a7b:bea:0:1:2", 20), rrtype: miekg.TypeNS, want: unnamed},
	{title: "part of a Machine's own addresses", name: part("fdaa:0:863:a7b:bea:0:1:2", 31), rrtype: miekg.TypePTR, want: unnamed},
	{title: "part of another network's address", name: part("fdaa:0:22b7:a7b:bea:0:8:2", 20), rrtype: miekg.TypeNS, want: nowhere},
	{title: "all of the reverse zone", name: "a.a.d.f.ip6.arpa.", rrtype: miekg.TypePTR, want: unnamed},
	{title: "its SOA", name: "a.a.d.f.ip6.arpa.", rrtype: miekg.TypeSOA, want: expect("NOERROR aa", nothing("a.a.d.f.ip6.arpa."))},
	{title: "more than an address", name: "1." + arpa("fdaa:0:863:a7b:bea:0:1:2"), rrtype: miekg.TypePTR, want: nowhere},
	{title: "a label that is no digit", name: "g.a.a.d.f.ip6.arpa.", rrtype: miekg.TypePTR, want: nowhere},
	{title: "a label of two digits", name: "00.a.a.d.f.ip6.arpa.", rrtype: miekg.TypePTR, want: nowhere},
	{title: "the address next to ours", name: arpa("fdab::3"), rrtype: miekg.TypePTR, want: expect("REFUSED")},
	{title: "an IPv4 address", name: "1.0.0.10.in-addr.arpa.", rrtype: miekg.TypePTR, want: expect("REFUSED")},
}

// localRows are the names that nobody is asked for (RFC 6761, RFC 7686).
var localRows = []example{
	{title: "localhost", name: "localhost.", want: expect("NOERROR aa", "localhost. AAAA ::1")},
	{title: "localhost, IPv4", name: "LocalHost.", rrtype: miekg.TypeA, want: expect("NOERROR aa", "LocalHost. A 127.0.0.1")},
	{title: "below localhost", name: "a.b.localhost.", want: expect("NOERROR aa", "a.b.localhost. AAAA ::1")},
	{title: "another type of localhost", name: "localhost.", rrtype: miekg.TypeMX, want: expect("NOERROR aa", nothing("localhost."))},
	{title: "invalid", name: "a.invalid.", want: expect("NXDOMAIN aa", nothing("invalid."))},
	{title: "onion", name: "a.onion.", want: expect("NXDOMAIN aa", nothing("onion."))},
}

var (
	unnamed = expect("NOERROR aa", nothing("a.a.d.f.ip6.arpa."))
	nowhere = expect("NXDOMAIN aa", nothing("a.a.d.f.ip6.arpa."))
)

// arpa is the name of an address.
func arpa(address string) string {
	name, err := miekg.ReverseAddr(address)
	if err != nil {
		panic(err)
	}
	return name
}

// part is the name of an address's first digits.
func part(address string, digits int) string { return arpa(address)[2*(32-digits):] }

func pointer(address, name string) string {
	return expect("NOERROR aa", arpa(address)+" PTR "+name)
}
