package machine

import (
	"strings"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// HostsFile is the content of a Machine's /etc/hosts.
func HostsFile(addr, hostname string) string {
	return "127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		addr + "\tfly-local-6pn\n" +
		addr + "\t" + hostname + "\n"
}

// ResolvConf is the content of a Machine's /etc/resolv.conf, resolv.conf(5): the
// router's own resolver if its configuration names none.
func ResolvConf(c state.DNS) string {
	servers := c.Nameservers
	if len(servers) == 0 {
		servers = []string{sixpn.DNS.String()}
	}
	var b strings.Builder
	for _, server := range servers {
		b.WriteString("nameserver " + server + "\n")
	}
	if len(c.Searches) > 0 {
		b.WriteString("search " + strings.Join(c.Searches, " ") + "\n")
	}
	if len(c.Options) > 0 {
		b.WriteString("options")
		for _, option := range c.Options {
			b.WriteString(" " + option.Name)
			if option.Value != "" {
				b.WriteString(":" + option.Value)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
