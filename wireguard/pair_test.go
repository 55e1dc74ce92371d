package wireguard_test

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// underlays are a pair of addresses for each family.
var underlays = map[string][2]string{"IPv4": {"192.0.2.1/24", "192.0.2.2/24"}, "IPv6": {"2001:db8::1/64", "2001:db8::2/64"}}

// newPair makes two hosts with an underlay between them, without meshes.
func newPair(t *testing.T, family string) (a, b *host) {
	t.Helper()
	a, b = newHost(t, 0x863_0a7b), newHost(t, 0x42)
	a.in(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "underlay"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "underlay", PeerNamespace: netlink.NsFd(b.namespace.File().Fd())})
	})
	for i, h := range []*host{a, b} {
		h.underlay = h.address(underlays[family][i])
		h.in(func() error { return raise("underlay") })
	}
	return a, b
}

// address gives the host an address of the underlay.
func (h *host) address(prefix string) netip.Addr {
	h.t.Helper()
	h.in(func() error {
		link, err := netlink.LinkByName("underlay")
		if err != nil {
			return err
		}
		address, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		if address.IP.To4() == nil {
			address.Flags = unix.IFA_F_NODAD
		}
		return netlink.AddrAdd(link, address)
	})
	return netip.MustParsePrefix(prefix).Addr()
}

// engines runs a test with the engine process and with what the agent takes when it
// may choose, which is the kernel's WireGuard on a kernel that has it.
func engines(t *testing.T, test func(t *testing.T, a, b *host)) {
	for _, engine := range []string{"userspace", "auto"} {
		t.Run(engine, func(t *testing.T) {
			a, b := newPair(t, "IPv4")
			a.config.Engine = engine
			a.meet(b)
			test(t, a, b)
		})
	}
}

// newMesh makes two hosts that reach each other.
func newMesh(t *testing.T, family string) (a, b *host) {
	t.Helper()
	a, b = newPair(t, family)
	a.meet(b)
	return a, b
}

// meet opens the meshes of two hosts and waits until they reach each other.
func (a *host) meet(b *host) {
	a.t.Helper()
	a.open()
	b.open()
	a.setPeers(b.peer())
	b.setPeers(a.peer())
	a.connect()
	b.connect()
	a.reach(b)
}
