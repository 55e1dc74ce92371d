package state

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

// scope is what a partial Store has besides the hosts. It follows from the records and
// from nothing else, so that a snapshot of any revision has all that its host needs.
type scope struct {
	self  sixpn.Host
	mine  map[string]bool        // Machines of this host, by id; false: its record has not come yet
	home  map[sixpn.Network]bool // networks that have one of them
	whole map[sixpn.Network]bool // home, and the networks of apps that those of home reach by an address
	vips  map[sixpn.Network]bool // of these, only the addresses: some lead to an app that has a Machine here
	// What has to be looked up elsewhere than under these networks, and is kept as long as
	// no event says otherwise.
	places map[string]sixpn.Network   // where each app is that an address of home leads to, 0 for nowhere
	users  map[string][]sixpn.Network // which networks have addresses of each app that has a Machine here
}

func newScope(self sixpn.Host) *scope {
	return &scope{
		self: self, mine: map[string]bool{}, home: map[sixpn.Network]bool{}, whole: map[sixpn.Network]bool{},
		vips: map[sixpn.Network]bool{}, places: map[string]sixpn.Network{}, users: map[string][]sixpn.Network{},
	}
}

// has is whether a partial snapshot holds what a key is about.
func (c *scope) has(k recordKey) bool {
	switch k.kind {
	case kindHost, kindAlive, kindFleet, kindGeneration:
		return true
	case kindVIP:
		return c.whole[sixpn.Network(k.number)] || c.vips[sixpn.Network(k.number)]
	case kindNetwork, kindApp, kindMachine, kindDeleted:
		return c.whole[sixpn.Network(k.number)]
	case kindOrg, kindNone:
	}
	return false
}

// movedBy is whether the scope may be another one after an event of this key.
func (c *scope) movedBy(key string, k recordKey, removed bool) bool {
	switch k.kind {
	case kindVIP:
		return c.home[sixpn.Network(k.number)]
	case kindMachine: // it may have gone to another network with its app
		known, mine := c.mine[k.name]
		return mine && (removed || !known)
	case kindApp:
		_, ok := c.places[k.name]
		return ok && removed
	case kindOrg, kindNetwork, kindHost, kindDeleted, kindAlive, kindFleet, kindGeneration, kindNone:
	}
	if strings.HasPrefix(key, indexHostMachines(c.self)) {
		return true
	}
	if app, ok := strings.CutPrefix(key, nameApp("")); ok {
		_, ok := c.places[app]
		return ok
	}
	if rest, ok := strings.CutPrefix(key, root+"index/app-vips/"); ok {
		app, _, _ := strings.Cut(rest, "/")
		_, ok := c.users[app]
		return ok
	}
	return false
}

// survey finds the scope as of the draft's revision. What is new in it is read and put
// into the draft, what is not in it any more goes. Users of the apps in again are looked
// up once more.
func (s *Store) survey(ctx context.Context, d *draft, old *scope, again map[string]bool) (*scope, error) {
	c, read := newScope(old.self), map[sixpn.Network]bool{}
	for _, step := range []func() error{
		func() error { return s.surveyHome(ctx, d, c) },
		func() error { return s.surveyPlaces(ctx, d, c) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
		for _, n := range slices.Sorted(maps.Keys(c.whole)) {
			if old.whole[n] || read[n] {
				continue
			}
			read[n] = true
			if err := s.readVIPsInto(ctx, d, keyNetworkAll(n), n); err != nil {
				return nil, err
			}
		}
	}
	if err := s.surveyUsers(ctx, d, old, c, again); err != nil {
		return nil, err
	}
	for n := range old.whole {
		if !c.whole[n] {
			d.dropNetwork(n)
		}
	}
	for _, had := range []map[sixpn.Network]bool{old.whole, old.vips} {
		for n := range had {
			if !c.whole[n] && !c.vips[n] {
				d.dropVIPs(n)
			}
		}
	}
	return c, nil
}

// surveyHome finds the Machines of this host and their networks.
func (s *Store) surveyHome(ctx context.Context, d *draft, c *scope) error {
	var unknown []string
	if c.self == 0 {
		return nil
	}
	index := indexHostMachines(c.self)
	if err := s.readRange(ctx, index, d.next.Revision, func(key string, _ []byte, _ int64) { c.mine[strings.TrimPrefix(key, index)] = true }, clientv3.WithKeysOnly()); err != nil {
		return err
	}
	for id := range c.mine {
		if m, ok := d.next.Machines[id]; ok {
			c.home[m.Network] = true
		} else {
			unknown = append(unknown, nameMachineID(id))
		}
	}
	if err := s.lookUp(ctx, unknown, d.next.Revision, func(_ string, n sixpn.Network) { c.home[n] = true }); err != nil {
		return err
	}
	delete(c.home, 0)
	maps.Copy(c.whole, c.home)
	return nil
}

// surveyPlaces finds where the apps are that the networks of home reach.
func (s *Store) surveyPlaces(ctx context.Context, d *draft, c *scope) error {
	var unknown []string
	for _, v := range d.next.VIPs {
		if !c.home[v.Network] {
			continue
		}
		if app, ok := d.next.Apps[v.App]; ok {
			c.places[v.App] = app.Network
		} else if _, asked := c.places[v.App]; !asked {
			c.places[v.App] = 0
			unknown = append(unknown, nameApp(v.App))
		}
	}
	if err := s.lookUp(ctx, unknown, d.next.Revision, func(key string, n sixpn.Network) {
		c.places[strings.TrimPrefix(key, nameApp(""))] = n
	}); err != nil {
		return err
	}
	for _, n := range c.places {
		if n != 0 {
			c.whole[n] = true
		}
	}
	return nil
}

// surveyUsers finds which networks have addresses of the apps that have a Machine here.
func (s *Store) surveyUsers(ctx context.Context, d *draft, old, c *scope, again map[string]bool) error {
	for id := range c.mine {
		m, known := d.next.Machines[id]
		c.mine[id] = known
		app := m.App
		if _, done := c.users[app]; done || app == "" {
			continue
		}
		networks, known := old.users[app]
		if !known || again[app] {
			networks = nil
			if err := s.readRange(ctx, indexAppVIPs(app), d.next.Revision, func(key string, _ []byte, _ int64) {
				if addr, err := netip.ParseAddr(strings.TrimPrefix(key, indexAppVIPs(app))); err == nil {
					_, f := sixpn.Classify(addr)
					networks = append(networks, f.Network)
				}
			}, clientv3.WithKeysOnly()); err != nil {
				return err
			}
		}
		c.users[app] = networks
		for _, n := range networks {
			if c.whole[n] || c.vips[n] {
				continue
			}
			c.vips[n] = true
			if !old.vips[n] { // also if it was whole: they are another watch from now on
				if err := s.readVIPsInto(ctx, d, keyVIPs(n), n); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// dropNetwork takes everything of a network out of a partial draft but its addresses.
func (d *draft) dropNetwork(n sixpn.Network) {
	var keys []string
	for _, app := range d.next.networkApps[n] {
		keys = append(keys, keyApp(n, app))
		for _, id := range d.next.appDeleted[app] {
			keys = append(keys, keyDeleted(n, app, id))
		}
	}
	for id, m := range d.next.Machines {
		if m.Network == n {
			keys = append(keys, keyMachine(n, id))
		}
	}
	for key := range d.next.Unreadable {
		switch k := parseKey(key); k.kind {
		case kindNetwork, kindApp, kindMachine, kindDeleted:
			if sixpn.Network(k.number) == n {
				keys = append(keys, key)
			}
		case kindOrg, kindVIP, kindHost, kindAlive, kindFleet, kindGeneration, kindNone:
		}
	}
	for _, key := range append(keys, keyNetwork(n)) {
		d.remove(key)
	}
}

func (d *draft) dropVIPs(n sixpn.Network) {
	var keys []string
	for _, v := range d.next.VIPs {
		if v.Network == n {
			keys = append(keys, keyVIP(n, v.Number))
		}
	}
	for key := range d.next.Unreadable {
		if k := parseKey(key); k.kind == kindVIP && sixpn.Network(k.number) == n {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		d.remove(key)
	}
}

// lookUp reads numbers of networks, as of one revision; absent ones are left out.
func (s *Store) lookUp(ctx context.Context, keys []string, revision int64, found func(key string, n sixpn.Network)) error {
	for some := range slices.Chunk(keys, readAtOnce) {
		var gets []clientv3.Op
		for _, key := range some {
			gets = append(gets, clientv3.OpGet(key, clientv3.WithRev(revision)))
		}
		response, err := s.client.Txn(ctx).Then(gets...).Commit()
		if err != nil {
			return err
		}
		for _, r := range response.Responses {
			for _, kv := range r.GetResponseRange().Kvs {
				if n, ok := parseHex(string(kv.Value)); ok {
					found(string(kv.Key), sixpn.Network(n))
				}
			}
		}
	}
	return nil
}

// readInto puts all that begins with a prefix into a draft, as of the draft's revision.
func (s *Store) readInto(ctx context.Context, d *draft, prefix string) error {
	return s.readRange(ctx, prefix, d.next.Revision, func(key string, value []byte, revision int64) { s.put(d, key, value, revision) })
}

// readVIPsInto is readInto for what has all addresses of a network. The draft may have some
// of them: what another watch has not delivered yet, it never will.
func (s *Store) readVIPsInto(ctx context.Context, d *draft, prefix string, n sixpn.Network) error {
	found := map[string]bool{}
	err := s.readRange(ctx, prefix, d.next.Revision, func(key string, value []byte, revision int64) {
		found[key] = true
		s.put(d, key, value, revision)
	})
	if err != nil {
		return err
	}
	for _, v := range d.next.VIPs {
		if key := keyVIP(n, v.Number); v.Network == n && !found[key] {
			d.remove(key)
		}
	}
	return nil
}
