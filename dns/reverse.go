package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/sixpn/sixpn"
)

const (
	// reverseZone is where the names of addresses hang, and ours are below ourReverse:
	// those of fdaa::/16, of whatever network, are never asked of anyone else.
	reverseZone = "ip6.arpa"
	ourReverse  = "a.a.d.f"
	nibbles     = 32 // labels of a whole address
)

// reverse is which names addresses have, by address. A Machine is found by every
// address of its /112: a server that was reached through Flycast sees one of them.
type reverse struct {
	prefixes []namedPrefix // in order of address; none is part of another
}

type namedPrefix struct {
	netip.Prefix
	name string // with its final dot; "": there is the address, and nothing to say
}

// reverse is the names of all addresses that a network was given.
func (v *View) reverse(asker sixpn.Network) *reverse {
	r := &reverse{}
	for _, address := range []netip.Addr{sixpn.DNS, sixpn.NetworkDNS(asker)} {
		r.prefixes = append(r.prefixes, namedPrefix{netip.PrefixFrom(address, address.BitLen()), "_api.internal."})
	}
	for _, app := range v.snapshot.NetworkApps(asker) {
		for _, m := range v.named(app) {
			named := namedPrefix{Prefix: sixpn.MachinePrefix(m.Network, m.Host, m.Number)}
			if v.leads(m) {
				named.name = m.ID + ".vm." + m.App + ".internal."
			}
			r.prefixes = append(r.prefixes, named)
		}
	}
	for address, vip := range v.snapshot.VIPs {
		if vip.Network == asker {
			r.prefixes = append(r.prefixes, namedPrefix{netip.PrefixFrom(address, address.BitLen()), vip.App + ".flycast."})
		}
	}
	slices.SortFunc(r.prefixes, func(a, b namedPrefix) int { return a.Addr().Compare(b.Addr()) })
	return r
}

// find is what a name below ip6.arpa holds, which has our end. A name that stands
// for part of an address exists if an address that begins so has a name.
func (r *reverse) find(name string) (found records, ok bool) {
	digits := strings.Split(name, ".")
	if len(digits) > nibbles {
		return records{}, false
	}
	var bytes [16]byte
	for i := range digits {
		digit := digits[len(digits)-1-i]
		value := strings.IndexByte("0123456789abcdef", (digit + "\x00")[0])
		if len(digit) != 1 || value < 0 {
			return records{}, false
		}
		bytes[i/2] |= byte(value) << (4 * (1 - i%2))
	}
	asked := netip.PrefixFrom(netip.AddrFrom16(bytes), 4*len(digits))
	// The first that does not lie wholly before the address, and its predecessor,
	// which may reach beyond it, are all that can overlap.
	at, _ := slices.BinarySearchFunc(r.prefixes, asked.Addr(), func(p namedPrefix, a netip.Addr) int {
		return cmp.Or(p.Addr().Compare(a), 0)
	})
	for _, near := range r.prefixes[max(at-1, 0):min(at+1, len(r.prefixes))] {
		if !near.Overlaps(asked) {
			continue
		}
		if len(digits) == nibbles && near.name != "" {
			found.pointers = []string{near.name}
		}
		return found, true
	}
	return records{}, false
}
