package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// Programs that are known to read these names, each as far as its rules go: what
// it asks, by which way, and what it takes for an error. They see an app of few
// Machines, whose lists are one string of one datagram, and one of many.
var clients = []struct {
	title string
	read  func(p private, few bool) (machines map[string]bool, err error) // by what it knows of them
	want  func(state.Machine) string
}{
	{"by Go's resolver, two fields an item", readPairs, func(m state.Machine) string { return m.ID + " " + m.Region }},
	{"by the strings of a record, two fields an item", readStrings, func(m state.Machine) string { return m.ID + " " + m.Region }},
	{"EDNS0, then TCP", readInstances, func(m state.Machine) string { return m.Addr().String() }},
	{"one record, split three times", readOneRecord, func(m state.Machine) string { return m.ID }},
	{"A and AAAA", pollBoth, func(m state.Machine) string { return m.Addr().String() }},
	{"lists, then the addresses of each region", walkRegions, func(m state.Machine) string { return m.Addr().String() }},
	{"over TCP by single reads", readSingly, func(m state.Machine) string { return m.Addr().String() }},
}

func TestClients(t *testing.T) {
	for _, machines := range []int{2, 200} {
		snapshot := crowd(machines)
		p := newPrivate(t)
		p.serve(Config{Snapshot: func() *state.Snapshot { return snapshot }})
		for _, row := range clients {
			t.Run(fmt.Sprintf("%d Machines/%s", machines, row.title), func(t *testing.T) {
				want := make(map[string]bool)
				for _, m := range snapshot.Machines {
					want[row.want(m)] = true
				}
				got, err := row.read(private{p.Namespace, t}, machines == 2)
				if err != nil {
					t.Fatal(err)
				}
				for one := range want {
					if !got[one] {
						t.Errorf("it does not find %q", one)
					}
				}
				if len(got) != len(want) {
					t.Errorf("it finds %d of %d", len(got), len(want))
				}
			})
		}
	}
}

// resolver is Go's own, asking over UDP with a short patience.
func (p private) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		conn := p.dial(network[:3]+"6", client(acme), sixpn.DNS)
		return conn, conn.SetDeadline(time.Now().Add(time.Second))
	}}
}

// readPairs demands two fields of each item of vms. It gets the strings of a
// record joined.
func readPairs(p private, _ bool) (map[string]bool, error) {
	texts, err := p.resolver().LookupTXT(p.t.Context(), "vms.web.internal")
	if err != nil {
		return nil, err
	}
	return pairs(texts)
}

// readStrings is the same for who splits each string: it can only get along with
// lists of one.
func readStrings(p private, few bool) (map[string]bool, error) {
	if !few {
		return readPairs(p, few)
	}
	reply := converse(p.t, p.dial("udp6", client(acme), sixpn.DNS), ask("vms.web.internal.", miekg.TypeTXT))
	var texts []string
	for _, rr := range reply.Answer {
		texts = append(texts, rr.(*miekg.TXT).Txt...)
	}
	return pairs(texts)
}

func pairs(texts []string) (map[string]bool, error) {
	found := make(map[string]bool)
	for _, text := range texts {
		for item := range strings.SplitSeq(text, ",") {
			fields := strings.Split(item, " ")
			if len(fields) != 2 {
				return nil, fmt.Errorf("item %q has %d fields", item, len(fields))
			}
			found[fields[0]+" "+fields[1]] = true
		}
	}
	return found, nil
}

// readInstances asks with EDNS0 over UDP, then TCP, joins the strings, and takes a
// malformed address or region for an error.
func readInstances(p private, few bool) (map[string]bool, error) {
	query := ask("_instances.internal.", miekg.TypeTXT).SetEdns0(MaxUDP, false)
	reply := converse(p.t, p.dial("udp6", client(acme), sixpn.DNS), query)
	if reply.Truncated == few {
		return nil, fmt.Errorf("truncation bit %v", reply.Truncated)
	}
	if reply.Truncated {
		reply = converse(p.t, p.dial("tcp6", client(acme), sixpn.DNS), query)
	}
	found := make(map[string]bool)
	for _, rr := range reply.Answer {
		for item := range strings.SplitSeq(strings.Join(rr.(*miekg.TXT).Txt, ""), ";") {
			fields := make(map[string]string)
			for pair := range strings.SplitSeq(item, ",") {
				key, value, ok := strings.Cut(pair, "=")
				if !ok {
					return nil, fmt.Errorf("%q of %q is no pair", pair, item)
				}
				fields[key] = value
			}
			address, err := netip.ParseAddr(fields["ip"])
			if err != nil {
				return nil, err
			}
			if _, ok := state.LookupRegion(fields["region"]); !ok || fields["app"] != "web" {
				return nil, fmt.Errorf("item %q", item)
			}
			found[address.String()] = true
		}
	}
	return found, nil
}

// readOneRecord demands exactly one TXT record, joins it, and splits it at ";",
// "," and "=".
func readOneRecord(p private, _ bool) (map[string]bool, error) {
	reply := converse(p.t, p.dial("tcp6", client(acme), sixpn.DNS), ask("_instances.internal.", miekg.TypeTXT))
	if len(reply.Answer) != 1 {
		return nil, fmt.Errorf("%d records", len(reply.Answer))
	}
	found := make(map[string]bool)
	for item := range strings.SplitSeq(strings.Join(reply.Answer[0].(*miekg.TXT).Txt, ""), ";") {
		parts := strings.FieldsFunc(item, func(r rune) bool { return r == ',' || r == '=' })
		if len(parts) != 8 || parts[0] != "instance" || parts[2] != "app" || parts[4] != "ip" || parts[6] != "region" {
			return nil, fmt.Errorf("item %q is split to %q", item, parts)
		}
		found[parts[1]] = true
	}
	return found, nil
}

// pollBoth takes the union of A and AAAA, and an error of either for the loss of
// all nodes.
func pollBoth(p private, _ bool) (map[string]bool, error) {
	found := make(map[string]bool)
	for _, rrtype := range []uint16{miekg.TypeA, miekg.TypeAAAA} {
		reply := converse(p.t, p.dial("tcp6", client(acme), sixpn.DNS), ask("web.internal.", rrtype))
		if reply.Rcode != miekg.RcodeSuccess {
			return nil, fmt.Errorf("type %d: rcode %d", rrtype, reply.Rcode)
		}
		for _, rr := range reply.Answer {
			found[rr.(*miekg.AAAA).AAAA.String()] = true
		}
	}
	return found, nil
}

// walkRegions lists the apps, their regions, and the addresses everywhere and by
// region; the nearest is one of those.
func walkRegions(p private, _ bool) (map[string]bool, error) {
	resolver, ctx := p.resolver(), p.t.Context()
	list := func(name string) (items []string) {
		texts, err := resolver.LookupTXT(ctx, name)
		if err != nil {
			p.t.Error(err)
		}
		return strings.Split(strings.Join(texts, ","), ",")
	}
	addresses := func(name string) (all []string) {
		found, err := resolver.LookupNetIP(ctx, "ip6", name)
		if err != nil {
			p.t.Errorf("%s: %v", name, err)
		}
		for _, address := range found {
			all = append(all, address.String())
		}
		return all
	}
	found := make(map[string]bool)
	for _, app := range list("_apps.internal") {
		for _, region := range list("regions." + app + ".internal") {
			for _, address := range addresses(region + "." + app + ".internal") {
				found[address] = true
			}
		}
		everywhere := addresses("global." + app + ".internal")
		nearest := addresses("top1.nearest.of." + app + ".internal")
		if len(nearest) != 1 || !slices.Contains(everywhere, nearest[0]) {
			return nil, fmt.Errorf("the nearest are %q", nearest)
		}
		for _, address := range everywhere {
			if !found[address] {
				return nil, fmt.Errorf("%s is in no region", address)
			}
		}
	}
	return found, nil
}

// readSingly asks over TCP at the network's own address, takes one read for the
// whole reply, and every record for an address.
func readSingly(p private, _ bool) (map[string]bool, error) {
	conn := p.dial("tcp6", client(acme), sixpn.NetworkDNS(acme))
	found := make(map[string]bool)
	for _, name := range []string{"_api.internal.", "web.internal."} {
		if err := (&miekg.Conn{Conn: conn}).WriteMsg(ask(name, miekg.TypeAAAA)); err != nil {
			return nil, err
		}
		buffer := make([]byte, 1<<16)
		size, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		if size < 2 || int(binary.BigEndian.Uint16(buffer)) != size-2 {
			return nil, fmt.Errorf("one read got %d bytes of %d", size-2, binary.BigEndian.Uint16(buffer))
		}
		reply := new(miekg.Msg)
		if err := reply.Unpack(buffer[2:size]); err != nil {
			return nil, err
		}
		for _, rr := range reply.Answer {
			address, ok := rr.(*miekg.AAAA)
			if !ok {
				return nil, fmt.Errorf("a %T among the addresses", rr)
			}
			if name == "web.internal." {
				found[address.AAAA.String()] = true
			} else if address.AAAA.String() != sixpn.NetworkDNS(acme).String() {
				return nil, fmt.Errorf("the API is at %v", address)
			}
		}
	}
	return found, nil
}
