// Command coredns is CoreDNS with three plugins, the baseline of "sixpn bench dns".
// It is a module of its own, so that nothing of it becomes a dependency of sixpn.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
)

func main() {
	// CoreDNS runs its plugins in this order, which each build says anew.
	dnsserver.Directives = []string{"bind", "loadbalance", "hosts", "file"}
	coremain.Run()
}
