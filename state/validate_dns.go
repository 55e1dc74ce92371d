package state

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Limits of a Machine's resolv.conf. Resolvers look at the first three nameservers.
const (
	MaxNameservers = 8
	MaxSearches    = 16
	MaxDNSOptions  = 16
)

// A host name may have capitals, and a name in a search list underscores.
var (
	hostname     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	domainLabel  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
	optionName   = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	optionValue  = regexp.MustCompile(`^[A-Za-z0-9._-]{0,32}$`)
	maxDomainLen = 253 // RFC 1035, without the final dot
)

func validateDNS(c MachineConfig) error {
	const field = "config.dns."
	d := c.DNS
	if len(d.Nameservers) > MaxNameservers {
		return refuse(Invalid, field+"nameservers", "%d are too many: expected at most %d", len(d.Nameservers), MaxNameservers)
	}
	for i, s := range d.Nameservers {
		// What follows a '%' is a device of this host, not of the Machine.
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return refuse(Invalid, fmt.Sprintf("%snameservers[%d]", field, i), "%.60q is not the address of a server: expected one such as %q", s, "fdaa::3")
		}
	}
	if len(d.Searches) > MaxSearches {
		return refuse(Invalid, field+"searches", "%d are too many: expected at most %d", len(d.Searches), MaxSearches)
	}
	for i, s := range d.Searches {
		if !isDomain(s) {
			return refuse(Invalid, fmt.Sprintf("%ssearches[%d]", field, i), "%.80q is not the name of a domain: expected labels of letters, digits, '-' and '_' with dots between, such as %q", s, "web.internal")
		}
	}
	if len(d.Options) > MaxDNSOptions {
		return refuse(Invalid, field+"options", "%d are too many: expected at most %d", len(d.Options), MaxDNSOptions)
	}
	for i, o := range d.Options {
		at := fmt.Sprintf("%soptions[%d]", field, i)
		if !optionName.MatchString(o.Name) {
			return refuse(Invalid, at+".name", "%.40q is not an option of resolv.conf: expected a name such as %q", o.Name, "ndots")
		}
		if !optionValue.MatchString(o.Value) {
			return refuse(Invalid, at+".value", "%.40q is not a value: expected at most 32 letters, digits, '.', '_' and '-'", o.Value)
		}
	}
	if d.Hostname != "" && !hostname.MatchString(d.Hostname) {
		return refuse(Invalid, field+"hostname", "%.80q is not a host name: expected 1 to 63 letters, digits and '-', not beginning or ending with '-'", d.Hostname)
	}
	return nil
}

// isDomain is whether a name can be looked up; one dot at its end is allowed.
func isDomain(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxDomainLen {
		return false
	}
	for l := range strings.SplitSeq(name, ".") {
		if !domainLabel.MatchString(l) {
			return false
		}
	}
	return true
}
