package state

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixpn/sixpn"
)

// draft derives the next snapshot from one: it copies a map before its first
// change and shares every other one.
type draft struct {
	next   Snapshot
	copied map[any]bool // by the address of the field
	whole  bool         // read from nothing, not derived

	keepRaw bool
	raw     map[string]*rawRecord // what changed, nil for what is gone; only if keepRaw
}

// newWhole is the draft of everything.
func newWhole() *draft {
	d := newDraft(&Snapshot{
		Orgs: map[string]Org{}, Networks: map[sixpn.Network]Network{}, Apps: map[string]App{},
		Machines: map[string]Machine{}, VIPs: map[netip.Addr]VIP{}, Hosts: map[sixpn.Host]Host{},
		alive: map[sixpn.Host]presence{},
	})
	d.whole = true
	return d
}

func newDraft(from *Snapshot) *draft {
	return &draft{next: *from, copied: map[any]bool{}}
}

// own makes a map of the draft its own.
func own[K comparable, V any](d *draft, m *map[K]V) map[K]V {
	if !d.copied[m] {
		if *m = maps.Clone(*m); *m == nil {
			*m = map[K]V{}
		}
		d.copied[m] = true
	}
	return *m
}

// put applies a written record. The error is that of a record that cannot be read;
// the draft then keeps what it had of it.
func (d *draft) put(key string, value []byte, revision int64) error {
	k := parseKey(key)
	if d.keepRaw && k.kind != kindNone {
		d.note(key, &rawRecord{value, revision})
	}
	err := d.decode(key, k, value, revision)
	if err != nil {
		own(d, &d.next.Unreadable)[key] = err.Error()
	} else if _, was := d.next.Unreadable[key]; was {
		delete(own(d, &d.next.Unreadable), key)
	}
	return err
}

func (d *draft) note(key string, r *rawRecord) {
	if d.raw == nil {
		d.raw = map[string]*rawRecord{}
	}
	d.raw[key] = r
}

func (d *draft) decode(key string, k recordKey, value []byte, revision int64) error {
	switch k.kind {
	case kindOrg:
		return place(d, &d.next.Orgs, k.name, key, value, revision, func(o Org) string { return keyOrg(o.Slug) })
	case kindNetwork:
		return place(d, &d.next.Networks, sixpn.Network(k.number), key, value, revision,
			func(n Network) string { return keyNetwork(n.ID) })
	case kindHost:
		return place(d, &d.next.Hosts, sixpn.Host(k.number), key, value, revision,
			func(h Host) string { return keyHost(h.ID) })
	case kindApp:
		if err := place(d, &d.next.Apps, k.name, key, value, revision,
			func(a App) string { return keyApp(a.Network, a.Name) }); err != nil {
			return err
		}
		include(d, &d.next.networkApps, sixpn.Network(k.number), k.name, strings.Compare)
	case kindMachine:
		before := d.next.Machines[k.name]
		if err := place(d, &d.next.Machines, k.name, key, value, revision,
			func(m Machine) string { return keyMachine(m.Network, m.ID) }); err != nil {
			return err
		}
		d.moveMachine(before, d.next.Machines[k.name])
	case kindVIP:
		addr := sixpn.VIPAddr(sixpn.Network(k.number), k.vip)
		before := d.next.VIPs[addr]
		if err := place(d, &d.next.VIPs, addr, key, value, revision,
			func(v VIP) string { return keyVIP(v.Network, v.Number) }); err != nil {
			return err
		}
		after := d.next.VIPs[addr]
		if before.App != after.App {
			exclude(d, &d.next.appVIPs, before.App, addr, netip.Addr.Compare)
			include(d, &d.next.appVIPs, after.App, addr, netip.Addr.Compare)
		}
	case kindDeleted:
		if err := place(d, &d.next.deleted, deletedMachine{k.app, k.name}, key, value, revision,
			func(m Machine) string { return keyDeleted(m.Network, m.App, m.ID) }); err != nil {
			return err
		}
		include(d, &d.next.appDeleted, k.app, k.name, strings.Compare)
	case kindAlive:
		// Any value is a living lease, also one that a newer release wrote in its own way.
		r, err := Decode[presence](value, revision)
		own(d, &d.next.alive)[sixpn.Host(k.number)] = r.Value
		return err
	case kindFleet:
		d.next.fleet = string(value)
	case kindGeneration:
		r, err := Decode[generation](value, revision)
		d.next.generation = r.Value
		return err
	case kindNone:
	}
	return nil
}

// place decodes a record into a map of the draft. A record that lies under another
// key than its own would stand for two things at once, so it is not taken.
func place[K comparable, V any](
	d *draft, m *map[K]V, at K, key string, value []byte, revision int64, keyOf func(V) string,
) error {
	r, err := Decode[V](value, revision)
	if err != nil {
		return err
	}
	if want := keyOf(r.Value); want != key {
		return refuse(Invalid, "", "the record of key %s belongs under %s", key, want)
	}
	own(d, m)[at] = r.Value
	return nil
}

// remove applies a deletion.
func (d *draft) remove(key string) {
	if _, was := d.next.Unreadable[key]; was {
		delete(own(d, &d.next.Unreadable), key)
	}
	k := parseKey(key)
	if d.keepRaw && k.kind != kindNone {
		d.note(key, nil)
	}
	switch k.kind {
	case kindOrg:
		delete(own(d, &d.next.Orgs), k.name)
	case kindNetwork:
		delete(own(d, &d.next.Networks), sixpn.Network(k.number))
	case kindHost:
		delete(own(d, &d.next.Hosts), sixpn.Host(k.number))
	case kindApp:
		// Only if the name is still that of this key's network: an app may move.
		if d.next.Apps[k.name].Network == sixpn.Network(k.number) {
			delete(own(d, &d.next.Apps), k.name)
		}
		exclude(d, &d.next.networkApps, sixpn.Network(k.number), k.name, strings.Compare)
	case kindMachine:
		if before := d.next.Machines[k.name]; before.Network == sixpn.Network(k.number) {
			delete(own(d, &d.next.Machines), k.name)
			d.moveMachine(before, Machine{})
		}
	case kindVIP:
		addr := sixpn.VIPAddr(sixpn.Network(k.number), k.vip)
		exclude(d, &d.next.appVIPs, d.next.VIPs[addr].App, addr, netip.Addr.Compare)
		delete(own(d, &d.next.VIPs), addr)
	case kindDeleted:
		at := deletedMachine{k.app, k.name}
		if d.next.deleted[at].Network == sixpn.Network(k.number) {
			delete(own(d, &d.next.deleted), at)
			exclude(d, &d.next.appDeleted, k.app, k.name, strings.Compare)
		}
	case kindAlive:
		delete(own(d, &d.next.alive), sixpn.Host(k.number))
	case kindFleet, kindGeneration, kindNone: // a fleet has its name for good, and its store was restored
	}
}

// hostsChanged is whether hosts, or their leases, have come or gone.
func (d *draft) hostsChanged() bool {
	return d.whole || d.copied[&d.next.Hosts] || d.copied[&d.next.alive]
}

// moveMachine keeps the indexes when a Machine comes, goes or moves. Most writes
// of a Machine do none of that, and then the indexes stay shared.
func (d *draft) moveMachine(before, after Machine) {
	if before.App != after.App {
		exclude(d, &d.next.appMachines, before.App, before.ID, strings.Compare)
		include(d, &d.next.appMachines, after.App, after.ID, strings.Compare)
	}
	if before.Host != after.Host {
		exclude(d, &d.next.hostMachines, before.Host, before.ID, strings.Compare)
		include(d, &d.next.hostMachines, after.Host, after.ID, strings.Compare)
	}
}

// include adds an element to one ordered list of an index; the zero group is none.
func include[G comparable, E any](d *draft, index *map[G][]E, group G, e E, compare func(a, b E) int) {
	var none G
	list := (*index)[group]
	at, found := slices.BinarySearchFunc(list, e, compare)
	if group == none || found {
		return
	}
	// A new array: the old one belongs to an older snapshot.
	own(d, index)[group] = slices.Insert(slices.Clone(list), at, e)
}

func exclude[G comparable, E any](d *draft, index *map[G][]E, group G, e E, compare func(a, b E) int) {
	list := (*index)[group]
	at, found := slices.BinarySearchFunc(list, e, compare)
	if !found {
		return
	}
	if len(list) == 1 {
		delete(own(d, index), group)
		return
	}
	own(d, index)[group] = slices.Delete(slices.Clone(list), at, at+1)
}

// keep takes from an older snapshot what it had under each unreadable key.
func (d *draft) keep(older *Snapshot) {
	for key := range d.next.Unreadable {
		k := parseKey(key)
		switch k.kind {
		case kindOrg:
			keepOne(d, &d.next.Orgs, older.Orgs, k.name)
		case kindNetwork:
			keepOne(d, &d.next.Networks, older.Networks, sixpn.Network(k.number))
		case kindHost:
			keepOne(d, &d.next.Hosts, older.Hosts, sixpn.Host(k.number))
		case kindApp:
			keepOne(d, &d.next.Apps, older.Apps, k.name)
			if a, ok := d.next.Apps[k.name]; ok {
				include(d, &d.next.networkApps, a.Network, a.Name, strings.Compare)
			}
		case kindMachine:
			keepOne(d, &d.next.Machines, older.Machines, k.name)
			d.moveMachine(Machine{}, d.next.Machines[k.name])
		case kindVIP:
			addr := sixpn.VIPAddr(sixpn.Network(k.number), k.vip)
			keepOne(d, &d.next.VIPs, older.VIPs, addr)
			include(d, &d.next.appVIPs, d.next.VIPs[addr].App, addr, netip.Addr.Compare)
		case kindDeleted:
			at := deletedMachine{k.app, k.name}
			keepOne(d, &d.next.deleted, older.deleted, at)
			if _, ok := d.next.deleted[at]; ok {
				include(d, &d.next.appDeleted, k.app, k.name, strings.Compare)
			}
		case kindAlive, kindFleet, kindGeneration, kindNone:
		}
	}
}

func keepOne[K comparable, V any](d *draft, m *map[K]V, older map[K]V, at K) {
	if v, ok := older[at]; ok {
		own(d, m)[at] = v
	}
}
