package state

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sixpn/sixpn"
)

// Every key of the store. What belongs to a network is under that network, so that
// a host can watch only the networks it has something of. Numbers are 8 hex digits.
//
//	orgs/<slug>                                   Org
//	networks/<net>/network                        Network
//	networks/<net>/apps/<name>                    App
//	networks/<net>/machines/<id>                  Machine
//	networks/<net>/vips/<number>                  VIP
//	networks/<net>/deleted/<app>/<id>             Machine that is no more, for a while
//	hosts/<host>/host                             Host
//	hosts/<host>/alive                            presence, as long as the host's lease lives
//	fleet                                         its name: random letters and digits, made with the first host
//	generation                                    generation, of a store that was restored from an export
//
// The rest is written in the same transactions and is never part of a snapshot:
//
//	origin                                        up to which revision of another store an imported one has all
//	counters/…                                    last number given out, decimal; only ever grows
//	names/…                                       who has a name, or a key of the mesh, that is unique: the number
//	                                              of its network or host
//	changed/…                                     says by its revision when a range was changed last, see changed.go
//	index/…                                       read by prefix, to count and to list; of an app's addresses
//	                                              the value is the id of the request that allocated it
//
// An app that moves, and its Machines and addresses, get new keys under the new
// network in one transaction.
const root = "/sixpn/v1/"

const (
	counterNetworks = root + "counters/networks"
	counterHosts    = root + "counters/hosts"
	keyFleet        = root + "fleet"
)

func counterMachines(n sixpn.Network) string { return root + "counters/machines/" + hex8(n) }
func counterVIPs(n sixpn.Network) string     { return root + "counters/vips/" + hex8(n) }

func nameNetworks(org string) string      { return root + "names/networks/" + org + "/" }
func nameNetwork(org, name string) string { return nameNetworks(org) + name }
func nameApp(name string) string          { return root + "names/apps/" + name }
func nameMachines(app string) string      { return root + "names/machines/" + app + "/" }
func nameMachine(app, name string) string { return nameMachines(app) + name }
func nameMachineID(id string) string      { return root + "names/machine-ids/" + id }
func nameHost(name string) string         { return root + "names/hosts/" + name }
func nameHostKey(public string) string    { return root + "names/host-keys/" + public }

func indexHostMachines(h sixpn.Host) string { return root + "index/host-machines/" + hex8(h) + "/" }
func indexAppVIPs(app string) string        { return root + "index/app-vips/" + app + "/" }

func keyOrg(slug string) string            { return root + "orgs/" + slug }
func keyNetworkAll(n sixpn.Network) string { return root + "networks/" + hex8(n) + "/" }
func keyNetwork(n sixpn.Network) string    { return root + "networks/" + hex8(n) + "/network" }
func keyApps(n sixpn.Network) string       { return root + "networks/" + hex8(n) + "/apps/" }
func keyApp(n sixpn.Network, name string) string {
	return keyApps(n) + name
}
func keyNetworkDeleted(n sixpn.Network) string { return root + "networks/" + hex8(n) + "/deleted/" }
func keyAppDeleted(n sixpn.Network, app string) string {
	return keyNetworkDeleted(n) + app + "/"
}
func keyDeleted(n sixpn.Network, app, id string) string { return keyAppDeleted(n, app) + id }
func keyMachine(n sixpn.Network, id string) string {
	return root + "networks/" + hex8(n) + "/machines/" + id
}
func keyVIPs(n sixpn.Network) string               { return root + "networks/" + hex8(n) + "/vips/" }
func keyVIP(n sixpn.Network, number uint32) string { return keyVIPs(n) + hex8(number) }
func keyHosts() string                             { return root + "hosts/" }
func keyHost(h sixpn.Host) string                  { return root + "hosts/" + hex8(h) + "/host" }
func keyAlive(h sixpn.Host) string                 { return root + "hosts/" + hex8(h) + "/alive" }
func indexVIP(app string, a netip.Addr) string     { return indexAppVIPs(app) + a.String() }
func indexMachine(h sixpn.Host, id string) string  { return indexHostMachines(h) + id }

func hex8[N ~uint32](n N) string { return fmt.Sprintf("%08x", uint32(n)) }

func parseHex(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 16, 32)
	return uint32(n), err == nil && len(s) == 8
}

// recordKind says what a key holds.
type recordKind uint8

const (
	kindNone recordKind = iota // not a record of a snapshot
	kindOrg
	kindNetwork
	kindApp
	kindMachine
	kindVIP
	kindHost
	kindDeleted
	kindAlive
	kindFleet
	kindGeneration
)

// recordKey is a key taken apart.
type recordKey struct {
	kind   recordKind
	number uint32 // of the network, or of the host
	name   string // slug, app name or Machine id
	app    string // of a deleted Machine
	vip    uint32
}

func parseKey(key string) recordKey {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return recordKey{}
	}
	parts := strings.Split(rest, "/")
	if len(parts) == 2 && parts[0] == "orgs" {
		return recordKey{kind: kindOrg, name: parts[1]}
	}
	if key == keyFleet {
		return recordKey{kind: kindFleet}
	}
	if key == keyGeneration {
		return recordKey{kind: kindGeneration}
	}
	if len(parts) < 3 {
		return recordKey{}
	}
	number, ok := parseHex(parts[1])
	if !ok {
		return recordKey{}
	}
	k := recordKey{number: number}
	switch {
	case parts[0] == "hosts" && len(parts) == 3 && parts[2] == "host":
		k.kind = kindHost
	case parts[0] == "hosts" && len(parts) == 3 && parts[2] == "alive":
		k.kind = kindAlive
	case parts[0] == "networks" && len(parts) == 3 && parts[2] == "network":
		k.kind = kindNetwork
	case parts[0] == "networks" && len(parts) == 4:
		k.name = parts[3]
		switch parts[2] {
		case "apps":
			k.kind = kindApp
		case "machines":
			k.kind = kindMachine
		case "vips":
			k.name = ""
			if k.vip, ok = parseHex(parts[3]); ok {
				k.kind = kindVIP
			}
		}
	case parts[0] == "networks" && len(parts) == 5 && parts[2] == "deleted":
		k.kind, k.app, k.name = kindDeleted, parts[3], parts[4]
	}
	if k.kind == kindNone {
		return recordKey{}
	}
	return k
}
