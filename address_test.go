package sixpn_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sixpn/sixpn"
)

// Each address is one that the table of addresses in docs/architecture.md stands
// for, or such a one with a single field changed.
func TestClassify(t *testing.T) {
	for _, c := range []struct {
		addr string
		want sixpn.Kind
	}{
		{"fdaa:0:18:a7b:d6b:0:a:2", sixpn.KindMachine},
		{"fdaa:0:18:a7b:d6b:0:a:0", sixpn.KindMachine}, // all of the /112
		{"fdaa:0:18:a7b:d6b:0:a:ffff", sixpn.KindMachine},
		{"fdaa:0:0:a7b:d6b:0:a:2", sixpn.KindNone}, // network 0
		{"fdab:0:18:a7b:d6b:0:a:2", sixpn.KindNone},
		{"fdaa:0:18:0:3:0:a:2", sixpn.KindMachine}, // the lowest host

		{"fdaa:0:22b7:0:1::3", sixpn.KindVIP},
		{"fdaa:0:22b7:0:1:0:1:0", sixpn.KindVIP}, // number 0x10000
		{"fdaa:0:22b7:0:1::", sixpn.KindNone},    // number 0
		{"fdaa:0:22b7:0:1:1::3", sixpn.KindNone}, // a number of more than 32 bits
		{"fdaa:0:0:0:1::3", sixpn.KindNone},

		{"fdaa:0:18:0:2:0:a:8001", sixpn.KindOwnBackend},
		{"fdaa:0:18:0:2:0:0:8001", sixpn.KindNone},
		{"fdaa:0:0:0:2:0:a:8001", sixpn.KindNone},

		{"fdaa::3", sixpn.KindDNS},
		{"fdaa:0:18::3", sixpn.KindDNS},
		{"fdaa:0:18::4", sixpn.KindNone},
		{"fdaa:0:18::1:3", sixpn.KindNone},

		{"fdaa:0:18:a7b:d6b::1", sixpn.KindAgent},
		{"fdaa:0:18:a7b:d6b::2", sixpn.KindNone},
		{"fdaa:0:0:a7b:d6b::1", sixpn.KindHostAgent},

		{"fe80::1", sixpn.KindNone},
		{"::ffff:10.0.0.1", sixpn.KindNone},
		{"10.0.0.1", sixpn.KindNone},
		{"fdaa::3%eth0", sixpn.KindNone}, // an address of one link is no address of a network
	} {
		if got, _ := sixpn.Classify(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("Classify(%s) = %s, want %s", c.addr, got, c.want)
		}
	}
}

func TestCompose(t *testing.T) {
	for _, c := range []struct {
		got  interface{ String() string }
		want string
	}{
		{sixpn.MachineAddr(0x18, 0xa7b0d6b, 0xa), "fdaa:0:18:a7b:d6b:0:a:2"},
		{sixpn.MachinePrefix(0x18, 0xa7b0d6b, 0xa), "fdaa:0:18:a7b:d6b:0:a:0/112"},
		{sixpn.NetworkPrefix(0x18), "fdaa:0:18::/48"},
		{sixpn.NetworkDNS(0x18), "fdaa:0:18::3"},
		{sixpn.VIPAddr(0x22b7, 3), "fdaa:0:22b7:0:1::3"},
		{sixpn.VIPAddr(0x22b7, 0x12345678), "fdaa:0:22b7:0:1:0:1234:5678"},
		{sixpn.AgentAddr(0x18, 0xa7b0d6b), "fdaa:0:18:a7b:d6b::1"},
		{sixpn.AgentAddr(0, 0xa7b0d6b), "fdaa::a7b:d6b:0:0:1"},
		{sixpn.Rotate(sixpn.MachineAddr(0x18, 0xa7b0d6b, 0xa)), "fdaa:a7b:d6b:0:18:0:a:2"},
		{sixpn.Rotate(sixpn.AgentAddr(0, 0xa7b0d6b)), "fdaa:a7b:d6b::1"},
		{sixpn.Rotate(sixpn.Gateway), "fe80::1"},
		{sixpn.Host(0xa7b0d6b).MeshPrefix(), "fdaa:a7b:d6b::/48"},
		{sixpn.Network(0x22b7), "0:22b7"},
		{sixpn.Host(0xa7b0d6b), "a7b:d6b"},
		{sixpn.Machine(0xa), "0:a"},
	} {
		if got := c.got.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// Fields and addresses are two forms of the same thing.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := sixpn.Fields{
			Network: sixpn.Network(rapid.Uint32().Draw(t, "network")),
			Host:    sixpn.Host(rapid.Uint32().Draw(t, "host")),
			Machine: sixpn.Machine(rapid.Uint32().Draw(t, "machine")),
			Low:     rapid.Uint16().Draw(t, "low"),
		}
		addr := f.Addr()
		if !sixpn.Prefix.Contains(addr) {
			t.Fatalf("%s is outside %s", addr, sixpn.Prefix)
		}
		if got, ok := sixpn.Parse(addr); !ok || got != f {
			t.Fatalf("Parse(%s) = %+v, %v, want %+v", addr, got, ok, f)
		}
		if turned := sixpn.Rotate(addr); sixpn.Rotate(turned) != addr || !f.Host.MeshPrefix().Contains(turned) {
			t.Fatalf("%s is %s on the mesh: expected it in %s, and back again", addr, turned, f.Host.MeshPrefix())
		}
		if f.Kind() == sixpn.KindVIP && sixpn.VIPAddr(f.Network, sixpn.VIPNumber(f)) != addr {
			t.Fatalf("%s is not the VIP of its number %d", addr, sixpn.VIPNumber(f))
		}
		if f.Kind() == sixpn.KindMachine && !sixpn.MachinePrefix(f.Network, f.Host, f.Machine).Contains(addr) {
			t.Fatalf("%s is outside its Machine's prefix", addr)
		}
	})
}
