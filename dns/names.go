package dns

import (
	"strings"

	miekg "github.com/miekg/dns"

	"github.com/sixpn/sixpn"
)

// found is where a name was looked up, and what it holds.
type found struct {
	source Source  // SourceForward: it is none of our names
	zone   string  // that it belongs to, in canonical form
	have   records // that it holds
	exists bool
}

// find looks a name up as a client of network asker. What the two top-level
// domains and the reverse zone of fdaa::/16 hold is decided here and nowhere else,
// whatever it is; so are the few names that mean the asker itself (RFC 6761).
func (v *View) find(asker sixpn.Network, name string) (f found) {
	rest, top := cutLast(strings.TrimSuffix(miekg.CanonicalName(name), "."))
	switch top {
	case "internal":
		f = found{source: SourceInternal, zone: "internal."}
		f.have, f.exists = v.internal(asker, rest)
	case "flycast":
		f = found{source: SourceFlycast, zone: "flycast."}
		f.have, f.exists = v.network(asker).flycast().find(rest)
	case "arpa":
		if address, ok := reverseName(rest); ok {
			f = found{source: SourceReverse, zone: ourReverse + "." + reverseZone + "."}
			f.have, f.exists = v.network(asker).reverse().find(address)
		}
	case "localhost":
		f = found{source: SourceLocal, zone: "localhost.", have: loopback, exists: true}
	case "invalid", "onion": // the latter by RFC 7686
		f = found{source: SourceLocal, zone: top + "."}
	}
	return f
}

// internal finds a name below internal., where the last label is an app's name or
// one of the network's own, which begin with an underscore as no app's does.
func (v *View) internal(asker sixpn.Network, name string) (r records, ok bool) {
	rest, last := cutLast(name)
	if last == "" || last[0] == '_' {
		return v.network(asker).names().find(name)
	}
	app, ok := v.app(asker, last)
	if !ok {
		return records{}, false
	}
	return app.find(rest)
}

func (z zone) find(name string) (r records, ok bool) {
	if have, ok := z[name]; ok {
		return *have, true
	}
	return records{}, false
}

// reverseName is the labels below ip6.arpa. of a name at or below our part of it.
func reverseName(belowArpa string) (address string, ok bool) {
	address, ok = strings.CutSuffix(belowArpa, ".ip6")
	return address, ok && (address == ourReverse || strings.HasSuffix(address, "."+ourReverse))
}
