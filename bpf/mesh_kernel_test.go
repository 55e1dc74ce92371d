package bpf_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn"
)

// end is one host's WireGuard device.
type end struct {
	name string
	host sixpn.Host
	port int
	key  wgtypes.Key
}

// connectByKernel joins two worlds by WireGuard devices of the kernel, as hosts have
// them: one peer, one prefix. false: this kernel has none, and hosts use a TUN device.
func connectByKernel(t *testing.T, worlds ...*world) bool {
	t.Helper()
	control, err := wgctrl.New()
	must(t, err)
	defer control.Close()
	loopback, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(loopback))
	var ends []end
	for _, w := range worlds {
		number := taps.Add(1)
		e := end{fmt.Sprintf("wg%d", number), w.host, 51000 + int(number), wgtypes.Key{}}
		e.key, err = wgtypes.GeneratePrivateKey()
		must(t, err)
		attributes := netlink.NewLinkAttrs()
		attributes.Name = e.name
		err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attributes})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return false
		}
		must(t, err)
		t.Cleanup(func() {
			device, err := netlink.LinkByName(e.name)
			must(t, err)
			must(t, netlink.LinkDel(device))
		})
		ends = append(ends, e)
	}
	for i, e := range ends {
		peer := ends[1-i]
		prefix := peer.host.MeshPrefix()
		must(t, control.ConfigureDevice(e.name, wgtypes.Config{
			PrivateKey: &e.key, ListenPort: &e.port,
			Peers: []wgtypes.PeerConfig{{
				PublicKey:  peer.key.PublicKey(),
				Endpoint:   net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(peer.port))),
				AllowedIPs: []net.IPNet{{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 128)}},
			}},
		}))
		worlds[i].meshBy(t, e.name)
	}
	return true
}

// The kernel's WireGuard segments, completes and joins packets by itself.
func TestLiveMeshByTheKernel(t *testing.T) {
	near := newWorld(t)
	distant := newWorld(t, func(s *settings) { s.host = farHost })
	flycastWorld(near)
	if !connectByKernel(t, near, distant) {
		t.Log("this kernel has no WireGuard: on it hosts use a TUN device, as the other tests do")
		return
	}
	client, server := newGuest(t, near, near.client), newGuest(t, distant, distant.server)
	meet(t, near, distant, client, server)
	near.setMesh(1350)
	distant.setDevice(distant.server, 1300)
	transfer(t, client, netip.AddrPortFrom(server.addr(), backendPort+1), server.listen(backendPort+1), 1<<20)
	if near.counts().Drops["too_big"]+distant.counts().Drops["too_big"] == 0 {
		t.Error("no packet was too big: the path is not narrow")
	}
}
