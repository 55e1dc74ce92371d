package state

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/sixpn/sixpn"
)

// Snapshot is everything the store held at one revision. It is shared by all who
// ask for it: nobody may change it, nor what its records point to.
type Snapshot struct {
	Revision int64
	Orgs     map[string]Org // by slug
	Networks map[sixpn.Network]Network
	Apps     map[string]App     // by name
	Machines map[string]Machine // by id
	VIPs     map[netip.Addr]VIP
	Hosts    map[sixpn.Host]Host
	// Unreadable says, by key, which records this build could not read, and why. The
	// last readable version of such a record stays in the snapshot.
	Unreadable map[string]string
	// Absent is the hosts that are not present: see Present.
	Absent map[sixpn.Host]bool

	appMachines  map[string][]string // ids in order; likewise below
	hostMachines map[sixpn.Host][]string
	networkApps  map[sixpn.Network][]string
	appVIPs      map[string][]netip.Addr
	deleted      map[deletedMachine]Machine
	appDeleted   map[string][]string

	alive   map[sixpn.Host]presence  // whose lease lives
	held    map[sixpn.Host]bool      // whose lease is over, and who count as present all the same
	lostAll string                   // what to say of these
	left    map[sixpn.Host]time.Time // when the lease ended, of the absent of whom that was seen
	fleet   string                   // its name, "" before it has one
	// generation is of the store that this was read from, zero for one never restored.
	generation generation
	refusal    string // why what the store says is not believed
}

// AppMachines is the Machines of an app, by id.
func (s *Snapshot) AppMachines(app string) []Machine { return pick(s.Machines, s.appMachines[app]) }

// HostMachines is the Machines of a host, by id.
func (s *Snapshot) HostMachines(h sixpn.Host) []Machine {
	return pick(s.Machines, s.hostMachines[h])
}

// NetworkApps is the apps of a network, by name.
func (s *Snapshot) NetworkApps(n sixpn.Network) []App { return pick(s.Apps, s.networkApps[n]) }

// AppVIPs is the Flycast addresses that lead to an app, by address. Those of other
// networks than the app's own are its cross-network ones.
func (s *Snapshot) AppVIPs(app string) []VIP { return pick(s.VIPs, s.appVIPs[app]) }

// NetworkNamed finds a network of an org by its name, "" for the default one.
func (s *Snapshot) NetworkNamed(org, name string) (Network, bool) {
	if name == "" {
		name = DefaultNetwork
	}
	for _, n := range s.Networks {
		if n.Org == org && n.Name == name {
			return n, true
		}
	}
	return Network{}, false
}

// HostNamed finds a host by its name.
func (s *Snapshot) HostNamed(name string) (Host, bool) {
	for _, h := range s.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return Host{}, false
}

// OrgNetworks is the networks of an org, by number.
func (s *Snapshot) OrgNetworks(org string) []Network {
	var out []Network
	for _, n := range s.Networks {
		if n.Org == org {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b Network) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func pick[K comparable, V any](all map[K]V, keys []K) []V {
	if len(keys) == 0 {
		return nil
	}
	out := make([]V, 0, len(keys))
	for _, k := range keys {
		if v, ok := all[k]; ok {
			out = append(out, v)
		}
	}
	return out
}
