package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
)

// TestDraftsAreSnapshots applies random writes and deletions one by one and compares
// each snapshot with one read at once, and with itself after everything that followed.
func TestDraftsAreSnapshots(t *testing.T) {
	same := []cmp.Option{cmp.AllowUnexported(Snapshot{}), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
	rapid.Check(t, func(t *rapid.T) {
		content := map[string]string{}
		var taken, read []*Snapshot
		current := &Snapshot{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			d := newDraft(current)
			for range rapid.IntRange(1, 4).Draw(t, "events of one revision") {
				key, value := event(t)
				// What moves leaves its old place in the same revision, before or after.
				places, leaveFirst := elsewhere(content, key), rapid.Bool().Draw(t, "leave first")
				leave := func() {
					for _, old := range places {
						delete(content, old)
						d.remove(old)
					}
				}
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					delete(content, key)
					d.remove(key)
					continue
				}
				if leaveFirst {
					leave()
				}
				if err := d.put(key, []byte(value), 1); err != nil {
					t.Fatal(err)
				}
				if !leaveFirst {
					leave()
				}
				content[key] = value
			}
			current = &d.next
			taken, read = append(taken, current), append(read, readOnce(t, content))
		}
		for i := range taken {
			if diff := cmp.Diff(read[i], taken[i], same...); diff != "" {
				t.Fatalf("snapshot %d of %d (-read at once +derived):\n%s", i, len(taken), diff)
			}
		}
	})
}

// elsewhere is the keys under which other networks have what a key is about.
func elsewhere(content map[string]string, key string) []string {
	k := parseKey(key)
	var keys []string
	for other := range content {
		o := parseKey(other)
		if o.number != k.number && o.kind == k.kind && o.name == k.name && o.app == k.app &&
			(k.kind == kindApp || k.kind == kindMachine || k.kind == kindDeleted) {
			keys = append(keys, other)
		}
	}
	return keys
}

func readOnce(t *rapid.T, content map[string]string) *Snapshot {
	d := newDraft(&Snapshot{})
	for _, key := range slices.Sorted(maps.Keys(content)) {
		if err := d.put(key, []byte(content[key]), 1); err != nil {
			t.Fatal(err)
		}
	}
	return &d.next
}

// event draws a record out of few, so that writes meet each other.
func event(t *rapid.T) (key, value string) {
	few := func(what string) int { return rapid.IntRange(1, 3).Draw(t, what) }
	app := fmt.Sprintf("app-%d", few("app"))
	var record any
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		o := Org{Slug: fmt.Sprintf("org-%d", few("org"))}
		key, record = keyOrg(o.Slug), o
	case 1:
		n := Network{ID: sixpn.Network(few("network")), Name: app}
		key, record = keyNetwork(n.ID), n
	case 2:
		a := App{Name: app, Network: sixpn.Network(few("network")), Org: fmt.Sprint(few("org"))}
		key, record = keyApp(a.Network, a.Name), a
	case 3:
		m := Machine{
			ID: fmt.Sprintf("%014x", few("id")), App: app, Network: sixpn.Network(few("network")), Host: sixpn.Host(2 + few("host")),
			Restarts: few("restarts"),
		}
		key, record = keyMachine(m.Network, m.ID), m
	case 6:
		m := Machine{ID: fmt.Sprintf("%014x", few("id")), App: app, Network: sixpn.Network(few("network")), Restarts: few("restarts")}
		key, record = keyDeleted(m.Network, m.App, m.ID), m
	case 4:
		v := VIP{Network: sixpn.Network(few("network")), Number: uint32(few("number")), App: app}
		key, record = keyVIP(v.Network, v.Number), v
	case 7:
		key, record = keyAlive(sixpn.Host(2+few("host"))), presence{Session: app}
	default:
		h := Host{ID: sixpn.Host(2 + few("host")), Name: app}
		key, record = keyHost(h.ID), h
	}
	encoded, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(encoded)
}

func TestUnchangedMapsAreShared(t *testing.T) {
	before := Assemble(Snapshot{
		Orgs:     map[string]Org{"acme": {Slug: "acme"}},
		Machines: map[string]Machine{"00000000000001": {ID: "00000000000001", App: "web", Network: 1, Host: 3}},
	})
	d := newDraft(before)
	if err := d.put(keyMachine(1, "00000000000001"), []byte(`{"id":"00000000000001","app":"web","network":1,"host":3,"state":"started"}`), 2); err != nil {
		t.Fatal(err)
	}
	if d.copied[&d.next.Orgs] || d.copied[&d.next.appMachines] || d.copied[&d.next.hostMachines] {
		t.Errorf("a change of a Machine's state copied more than the Machines")
	}
	if !d.copied[&d.next.Machines] || before.Machines["00000000000001"].State != "" {
		t.Error("the older snapshot was written to")
	}
}

// TestKeys takes every key of a record apart again, and takes nothing else for one.
func TestKeys(t *testing.T) {
	for key, want := range map[string]recordKey{
		keyOrg("acme"):                              {kind: kindOrg, name: "acme"},
		keyNetwork(0xabcdef01):                      {kind: kindNetwork, number: 0xabcdef01},
		keyApp(1, "web"):                            {kind: kindApp, number: 1, name: "web"},
		keyMachine(1, "148e21dad76789"):             {kind: kindMachine, number: 1, name: "148e21dad76789"},
		keyVIP(1, 0xffffffff):                       {kind: kindVIP, number: 1, vip: 0xffffffff},
		keyHost(3):                                  {kind: kindHost, number: 3},
		keyAlive(3):                                 {kind: kindAlive, number: 3},
		nameHostKey("a+/b="):                        {},
		keyDeleted(1, "web", "148e21dad76789"):      {kind: kindDeleted, number: 1, app: "web", name: "148e21dad76789"},
		root + "networks/00000001/deleted/web":      {},
		root + "networks/00000001/deleted/web/x/y":  {},
		counterNetworks:                             {},
		counterVIPs(1):                              {},
		counterMachines(1):                          {},
		nameApp("web"):                              {},
		nameNetwork("acme", "default"):              {},
		nameMachine("web", "web-1"):                 {},
		nameHost("host-1"):                          {},
		indexMachine(3, "148e21dad76789"):           {},
		indexVIP("web", sixpn.VIPAddr(1, 1)):        {},
		"/other/v1/orgs/acme":                       {},
		root + "orgs":                               {},
		root + "orgs/a/b":                           {},
		root + "networks/1/network":                 {},
		root + "networks/zzzzzzzz/network":          {},
		root + "networks/00000001/vips/1":           {},
		root + "networks/00000001/peers/x":          {},
		root + "networks/00000001/machines":         {},
		root + "networks/00000001/machines/x/extra": {},
		root + "hosts/00000003/load":                {},
	} {
		if got := parseKey(key); got != want {
			t.Errorf("%s is %+v, want %+v", key, got, want)
		}
	}
}

func TestRecordUnderAnotherKeyIsRefused(t *testing.T) {
	d := newDraft(&Snapshot{})
	if err := d.put(keyMachine(2, "00000000000001"), []byte(`{"id":"00000000000001","network":1}`), 1); err == nil {
		t.Error("a Machine of network 1 was taken under network 2")
	}
	if len(d.next.Machines) != 0 || len(d.next.Unreadable) != 1 {
		t.Errorf("snapshot has %d Machines and %v unreadable", len(d.next.Machines), d.next.Unreadable)
	}
}
