package dns

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/sixpn/sixpn/state"
)

// appZone is the names at and below <app>.internal.
type appZone struct {
	zone
	nearest []net.IP // of the started Machines, nearest first
	started []*state.Machine
}

// appRow is one line of the table of an app's names: their shape, and what puts
// them into the zone. all is the Machines that have names, in any state, by id;
// started is those of them that answers lead to.
//
// A name exists as long as what it is made of does: that of a Machine while there
// is the Machine, that of a process group or of metadata while a Machine has it,
// started or not. What stops for a minute must not be remembered as missing. A
// region is a name of every app, and the names that only hold others (vm, process,
// kv._metadata, nearest.of) are too.
type appRow struct {
	shape string
	fill  func(z zone, all, started []*state.Machine)
}

var appRows = []appRow{
	{"<app>.internal", func(z zone, _, started []*state.Machine) {
		z.at("").addresses = addresses(started)
	}},
	{"global.<app>.internal", func(z zone, _, _ []*state.Machine) {
		z.at("global").addresses = z.at("").addresses
	}},
	{"<region>.<app>.internal", func(z zone, all, started []*state.Machine) {
		z.group("", all, started, func(m *state.Machine) []string { return []string{m.Region} })
	}},
	{"<id>.vm.<app>.internal", func(z zone, all, started []*state.Machine) {
		z.group("vm", all, started, func(m *state.Machine) []string { return []string{m.ID} })
	}},
	{"<group>.process.<app>.internal", func(z zone, all, started []*state.Machine) {
		z.group("process", all, started, func(m *state.Machine) []string { return []string{m.ProcessGroup()} })
	}},
	{"<value>.<key>.kv._metadata.<app>.internal", func(z zone, all, started []*state.Machine) {
		// Both may hold dots, so that one name can be made of different pairs: it
		// leads to the Machines of each.
		z.group("kv._metadata", all, started, func(m *state.Machine) (pairs []string) {
			for key, value := range m.Config.Metadata {
				pairs = append(pairs, value+"."+key)
			}
			return pairs
		})
	}},
	{"vms.<app>.internal", func(z zone, all, started []*state.Machine) {
		z.at("vms").text = list(placed(started), ",")
		z.at("all.vms").text = list(placed(all), ",")
	}},
	{"regions.<app>.internal", func(z zone, all, started []*state.Machine) {
		z.at("regions").text = list(regions(started), ",")
		z.at("all.regions").text = list(regions(all), ",")
	}},
	{"top<number>.nearest.of.<app>.internal", func(z zone, _, _ []*state.Machine) {
		z.at("nearest.of") // the numbers are without end: see find
	}},
}

func (v *View) newAppZone(app state.App) *appZone {
	all := v.named(app)
	started := slices.DeleteFunc(slices.Clone(all), func(m *state.Machine) bool { return !v.leads(m) })
	z := &appZone{zone: zone{}, started: started, nearest: addresses(v.byDistance(started))}
	for _, row := range appRows {
		row.fill(z.zone, all, started)
	}
	return z
}

// find is what a name below the app holds; ok is false if there is no such name.
func (z *appZone) find(name string) (r records, ok bool) {
	if have, ok := z.zone[name]; ok {
		return *have, true
	}
	if _, ok := state.LookupRegion(name); ok {
		return records{}, true
	}
	if top, ok := strings.CutSuffix(name, ".nearest.of"); ok {
		if digits, ok := strings.CutPrefix(top, "top"); ok {
			number, err := strconv.ParseUint(digits, 10, 32)
			// One number has one name: no 0, no sign, no leading zeros.
			if err == nil && number > 0 && digits[0] != '0' {
				return records{addresses: z.nearest[:min(number, uint64(len(z.nearest)))], ordered: true}, true
			}
		}
	}
	return records{}, false
}

// named is the Machines of an app that have names, by id. The network is asked of
// every one, so that no record can carry a name across a wall.
func (v *View) named(app state.App) (named []*state.Machine) {
	all := v.snapshot.AppMachines(app.Name)
	named = make([]*state.Machine, 0, len(all))
	for i := range all {
		m := &all[i]
		if m.Network == app.Network && !m.Config.DNS.SkipRegistration && m.State != state.Destroyed {
			named = append(named, m)
		}
	}
	return named
}

// leads says whether answers lead to a Machine: it is started, on a host that is
// present, and nobody has asked it to stop. Its host learns of that a moment later
// than this.
func (v *View) leads(m *state.Machine) bool {
	return m.State == state.Started && m.Desired == state.Started && v.snapshot.Present(m.Host)
}

// group gives each Machine the names that its keys say, below a place of the zone.
// Only those of started, which are in the order of all, are found by them.
func (z zone) group(below string, all, started []*state.Machine, keys func(*state.Machine) []string) {
	if below != "" {
		z.at(below)
		below = "." + below
	}
	for _, m := range all {
		leads := len(started) > 0 && started[0] == m
		if leads {
			started = started[1:]
		}
		address := net.IP(m.Addr().AsSlice())
		for _, key := range keys(m) {
			name, ok := spell(key)
			if !ok || len(name)+len(below) > maxName {
				continue // no query can hold it
			}
			at := z.at(name + below)
			// Two pairs of one Machine may be the same name.
			again := len(at.addresses) > 0 && at.addresses[len(at.addresses)-1].Equal(address)
			if leads && !again {
				at.addresses = append(at.addresses, address)
			}
		}
	}
}

func addresses(machines []*state.Machine) []net.IP {
	all := make([]net.IP, len(machines))
	bytes := make([]byte, 0, net.IPv6len*len(machines))
	for i, m := range machines {
		address := m.Addr().As16()
		bytes = append(bytes, address[:]...)
		all[i] = bytes[net.IPv6len*i : net.IPv6len*(i+1) : net.IPv6len*(i+1)]
	}
	return all
}

// placed are the items of vms: each Machine's id and region.
func placed(machines []*state.Machine) []string {
	items := make([]string, len(machines))
	for i, m := range machines {
		items[i] = m.ID + " " + m.Region
	}
	return items
}

// regions are those that Machines are in, by code.
func regions(machines []*state.Machine) []string {
	seen := make(map[string]bool)
	for _, m := range machines {
		seen[m.Region] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// byDistance sorts Machines by how far their region is from the resolver, then by id.
func (v *View) byDistance(machines []*state.Machine) []*state.Machine {
	return slices.SortedFunc(slices.Values(machines), func(a, b *state.Machine) int {
		return cmp.Or(cmp.Compare(v.distances.Rank(a.Region), v.distances.Rank(b.Region)), cmp.Compare(a.ID, b.ID))
	})
}
