package agent_test

import (
	"net/netip"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/internal/nettest/payload"
)

// TestPair is the whole way once: an org, an app, Machines that talk, a VIP, names.
func TestPair(t *testing.T) {
	ctx := nettest.Context(t)
	h := nettest.Start(ctx, t, nettest.Config{})
	nettest.Must(t, h.CreateOrg(ctx, "acme"))
	nettest.Must(t, h.CreateApp(ctx, "web", "acme"))
	nettest.Must(t, h.CreateApp(ctx, "client", "acme"))
	run := nettest.Get[*nettest.Machine](t)
	web := run(h.Run(ctx, "web", nettest.Options{Services: []string{"80:8080/tcp", "53:9000/udp"}}, h.Payload("serve", "-tcp", "8080", "-udp", "9000")...))
	client := run(h.Run(ctx, "client", nettest.Options{}, h.Payload("idle")...))
	vip := nettest.Get[netip.Addr](t)(h.AllocateVIP(ctx, "web", ""))

	for _, row := range []struct{ name, target string }{
		{"direct", netip.AddrPortFrom(web.Addr, 8080).String()},
		{"VIP", netip.AddrPortFrom(vip, 80).String()},
	} {
		got := nettest.Get[payload.Connections](t)(nettest.Probe[payload.Connections](ctx, client, "connect", "-count", "20", row.target))
		if got.OK != 20 || got.Answers[web.ID] != 20 {
			t.Errorf("%s: %+v, expected 20 answers of %s", row.name, got, web.ID)
		}
		for seen := range got.Clients {
			if a := netip.MustParseAddr(seen); netip.PrefixFrom(a, 112).Masked() != netip.PrefixFrom(client.Addr, 112).Masked() {
				t.Errorf("%s: the server saw %s, expected an address of the client's /112, %s", row.name, seen, client.Addr)
			}
		}
	}
	for _, row := range []struct{ name, kind, want string }{
		{"web.internal", "AAAA", web.Addr.String()},
		{"web.flycast", "AAAA", vip.String()},
		{"_apps.internal", "TXT", "client,web"},
	} {
		got := nettest.Get[payload.Lookup](t)(nettest.Probe[payload.Lookup](ctx, client, "lookup", row.kind, row.name))
		if len(got.Answers) != 1 || got.Answers[0] != row.want {
			t.Errorf("%s %s: %+v, expected %s", row.kind, row.name, got, row.want)
		}
	}
}
