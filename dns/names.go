package dns

import (
	"net/netip"
	"strings"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// row is one line of the table of names: the shape of a name, and what stands
// under it.
type row struct {
	// name is written as people write it. A label in angle brackets stands for
	// any one label, which find gets by the word inside the brackets.
	name string
	// find says what the name holds for this asker. ok is false when there is no
	// such name in the asker's network; a name that exists may hold nothing.
	find func(q question) (r records, ok bool)
}

// rows is the table of names; the first row whose shape fits decides.
var rows = []row{
	{"_apps.internal", networkApps},
	{"<app>.internal", appMachines},
	{"<app>.flycast", appVIPs},
}

// question is what a row's function works from.
type question struct {
	snapshot *state.Snapshot
	asker    sixpn.Network
	parts    map[string]string // by the word in angle brackets, in lower case
}

// records are the answers that one name holds.
type records struct {
	addresses []netip.Addr // one AAAA record each
	text      []string     // items of the one TXT record, joined by commas
}

// networkApps lists the apps that have a started Machine, by name.
func networkApps(q question) (r records, ok bool) {
	for _, app := range q.snapshot.NetworkApps(q.asker) {
		if len(started(q, app.Name)) > 0 {
			r.text = append(r.text, app.Name)
		}
	}
	return r, true
}

// appMachines is where an app of the asker's network runs. An app without a
// started Machine is still a name: what stops for a minute must not be
// remembered as missing.
func appMachines(q question) (r records, ok bool) {
	app, ok := q.snapshot.Apps[q.parts["app"]]
	if !ok || app.Network != q.asker {
		return records{}, false
	}
	return records{addresses: started(q, app.Name)}, true
}

// appVIPs are the Flycast addresses by which the asker's network reaches an app,
// be it an app of another network.
func appVIPs(q question) (r records, ok bool) {
	for _, vip := range q.snapshot.AppVIPs(q.parts["app"]) {
		if vip.Network == q.asker {
			r.addresses = append(r.addresses, vip.Addr())
		}
	}
	return r, len(r.addresses) > 0
}

// started are the addresses of an app's started Machines. The network is asked
// of every Machine, so that no record can carry a name across a wall.
func started(q question, app string) (addresses []netip.Addr) {
	for _, machine := range q.snapshot.AppMachines(app) {
		if machine.State == state.Started && machine.Network == q.asker {
			addresses = append(addresses, machine.Addr())
		}
	}
	return addresses
}

// find looks a name up. zone is the top-level domain it belongs to, in canonical
// form; it is "" when the name is none of ours, and then the rest says nothing.
func find(snapshot *state.Snapshot, asker sixpn.Network, name string) (zone string, r records, ok bool) {
	labels := miekg.SplitDomainName(miekg.CanonicalName(name))
	if len(labels) == 0 || !zones[labels[len(labels)-1]] {
		return "", records{}, false
	}
	zone = labels[len(labels)-1] + "."
	if len(labels) == 1 {
		return zone, records{}, true
	}
	for _, row := range rows {
		if parts, fits := fit(strings.Split(row.name, "."), labels); fits {
			r, ok := row.find(question{snapshot, asker, parts})
			return zone, r, ok
		}
	}
	return zone, records{}, false
}

// zones are the top-level domains of the table.
var zones = func() map[string]bool {
	all := make(map[string]bool)
	for _, row := range rows {
		all[row.name[strings.LastIndexByte(row.name, '.')+1:]] = true
	}
	return all
}()

// fit compares a name with a row's shape, label by label.
func fit(shape, labels []string) (parts map[string]string, ok bool) {
	if len(shape) != len(labels) {
		return nil, false
	}
	parts = make(map[string]string)
	for i, want := range shape {
		if strings.HasPrefix(want, "<") {
			parts[strings.Trim(want, "<>")] = labels[i]
		} else if want != labels[i] {
			return nil, false
		}
	}
	return parts, true
}
