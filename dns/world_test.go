package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

const (
	acme   sixpn.Network = 0x0863
	globex sixpn.Network = 0x22b7
	vacant sixpn.Network = 0x0099 // has nothing in it
	host   sixpn.Host    = 0x0a7b0bea
	here                 = "fra" // the resolver's region
	// asker is the machine field of whoever asks, in each network.
	asker sixpn.Machine = 0xfe
)

// fromHere is how far regions are from the resolver.
var fromHere = state.NewDistances(here, nil)

// world has web with Machines in every state, api with none started, both of
// acme, and db of globex, which acme reaches by an address of its own network.
func world() *state.Snapshot {
	return snapshot(
		[]state.App{{Name: "web", Network: acme}, {Name: "api", Network: acme}, {Name: "ghost", Network: acme}, {Name: "db", Network: globex}},
		[]state.Machine{
			{ID: "00000000000001", App: "web", Network: acme, Number: 1, State: state.Started, Region: "fra", Config: metadata(
				"role", "primary", "Version", "1.2.3", "app.kubernetes.io/name", "Web Server", "b.c", "a", "empty", "", "wrong", "a..b",
				"long", strings.Repeat("x", 64))},
			{ID: "00000000000002", App: "web", Network: acme, Number: 2, State: state.Started, Region: "iad", Config: metadata(
				"fly_process_group", "worker", "Role", "PRIMARY", "c", "a.b")},
			{ID: "00000000000003", App: "web", Network: acme, Number: 3, State: state.Stopped, Region: "nrt", Config: metadata("fly_process_group", "cron")},
			{ID: "00000000000004", App: "web", Network: acme, Number: 4, State: state.Starting, Region: "iad"},
			{ID: "00000000000005", App: "web", Network: acme, Number: 5, State: state.Stopping, Region: "fra"},
			{ID: "00000000000006", App: "web", Network: acme, Number: 6, State: state.Failed, Region: "fra"},
			{ID: "0000000000000c", App: "web", Network: acme, Number: 12, State: state.Started, Desired: state.Stopped, Region: "fra"}, // asked to stop
			{ID: "00000000000007", App: "api", Network: acme, Number: 7, State: state.Stopped, Region: "fra"},
			{ID: "00000000000008", App: "db", Network: globex, Number: 8, State: state.Started, Region: "ord"},
			{ID: "00000000000009", App: "web", Network: acme, Number: 9, State: state.Started, Region: "syd", Config: hidden(metadata("role", "hidden"))},
			{ID: "0000000000000a", App: "ghost", Network: acme, Number: 10, State: state.Started, Region: "fra", Config: hidden(metadata())},
			// A record that says it is of another network than its app has no name anywhere.
			{ID: "0000000000000b", App: "web", Network: globex, Number: 11, State: state.Started, Region: "fra"},
		},
		[]state.VIP{
			{App: "web", Network: acme, Number: 3},
			{App: "db", Network: acme, Number: 7},
			{App: "db", Network: globex, Number: 1},
		},
	)
}

func metadata(pairs ...string) (c state.MachineConfig) {
	c.Metadata = make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		c.Metadata[pairs[i]] = pairs[i+1]
	}
	return c
}

func hidden(c state.MachineConfig) state.MachineConfig {
	c.DNS.SkipRegistration = true
	return c
}

// crowd is one app with this many started Machines, in all regions by turns.
func crowd(machines int) *state.Snapshot {
	all := make([]state.Machine, machines)
	regions := state.Regions()
	for i := range all {
		all[i] = state.Machine{ID: fmt.Sprintf("%014x", i), App: "web", Network: acme, Number: sixpn.Machine(i + 1), State: state.Started, Region: regions[i%len(regions)].Code}
	}
	return snapshot([]state.App{{Name: "web", Network: acme}}, all, nil)
}

// street is this many apps with names as long as they may be, a Machine each.
func street(apps int) *state.Snapshot {
	names := make([]state.App, apps)
	machines := make([]state.Machine, apps)
	for i := range names {
		names[i] = state.App{Name: fmt.Sprintf("app-%04d-%s", i, strings.Repeat("x", 54)), Network: acme}
		machines[i] = state.Machine{ID: fmt.Sprintf("%014x", i), App: names[i].Name, Network: acme, Number: sixpn.Machine(i + 1), State: state.Started}
	}
	return snapshot(names, machines, nil)
}

func snapshot(apps []state.App, machines []state.Machine, vips []state.VIP) *state.Snapshot {
	s := state.Snapshot{
		Revision: 42,
		Networks: map[sixpn.Network]state.Network{acme: {ID: acme}, globex: {ID: globex}},
		Apps:     map[string]state.App{},
		Machines: map[string]state.Machine{},
		VIPs:     map[netip.Addr]state.VIP{},
	}
	for _, app := range apps {
		s.Apps[app.Name] = app
	}
	for _, machine := range machines {
		machine.Host = host
		setDefault(&machine.Desired, state.Started)
		s.Machines[machine.ID] = machine
	}
	for _, vip := range vips {
		s.VIPs[vip.Addr()] = vip
	}
	return state.Assemble(s)
}

// ask is a query as programs send it.
func ask(name string, rrtype uint16) *miekg.Msg {
	query := new(miekg.Msg).SetQuestion(name, rrtype)
	query.Id = 4711
	return query
}

// describe is a reply as one text, the same whether it came from the function,
// over a socket or out of dig: the status, "aa" and "tc", and the records in
// order of their text.
func describe(reply *miekg.Msg) string {
	if reply == nil {
		return "silence"
	}
	head := miekg.RcodeToString[reply.Rcode]
	if reply.Rcode == miekg.RcodeBadVers { // the library's table has TSIG's name of the same number
		head = "BADVERS"
	}
	if reply.Authoritative {
		head += " aa"
	}
	if reply.Truncated {
		head += " tc"
	}
	var lines []string
	for _, rr := range slices.Concat(reply.Answer, reply.Ns) {
		lines = append(lines, rr.String())
	}
	return sorted(head, lines)
}

// readable are the two spellings of a blank within a name.
var readable = strings.NewReplacer(`\ `, `\032`).Replace

var blanks = regexp.MustCompile(`\s+`)

func sorted(head string, lines []string) string {
	for i, line := range lines {
		lines[i] = blanks.ReplaceAllString(readable(line), " ")
	}
	slices.SortFunc(lines, cmp.Compare[string])
	return strings.Join(append([]string{head}, lines...), "\n")
}

// expect is describe's text: a head and records, with what every record has in
// common left out: "<name> AAAA <address>" is "<name> 5 IN AAAA <address>".
func expect(head string, records ...string) string {
	lines := make([]string, len(records))
	for i, record := range records {
		name, rest, _ := strings.Cut(record, " ")
		lines[i] = name + " 5 IN " + rest
	}
	return sorted(head, lines)
}

// nothing is the record that says for how long there is nothing in a zone.
func nothing(zone string) string {
	return fmt.Sprintf("%s SOA _dns.%s hostmaster.%s 42 5 5 5 5", zone, zone, zone)
}

func equal(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
