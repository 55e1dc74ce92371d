package bpf_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/bpf"
)

// innerRow is one change of a tunnel's packet, whose payload's checksum the kernel
// shall complete.
type innerRow struct {
	name   string
	shot   func(w *world) shot // nil: a datagram to the server
	change func(header *vnet, frame *[]byte)
	reason bpf.DropReason
}

func innerRows() []innerRow {
	const refused = bpf.RouterDropReasonDROP_CHECKSUM_OFFLOAD
	return []innerRow{
		{name: "passes"},
		{name: "from the end of udp's header on", change: func(h *vnet, _ *[]byte) { h.CsumStart = offsetL4 + 8 }},
		{name: "from within udp's header on", reason: refused, change: func(h *vnet, _ *[]byte) { h.CsumStart = offsetL4 + 7 }},
		{name: "from udp's ports on, into the payload", reason: refused, change: func(h *vnet, _ *[]byte) { h.CsumStart = offsetL4 + 2 }},
		{name: "from before udp on, into the payload", reason: refused, change: func(h *vnet, _ *[]byte) { h.CsumStart = offsetL4 - 2 }},
		{name: "of udp's own field", reason: refused, change: func(h *vnet, _ *[]byte) { h.CsumStart, h.CsumOffset = offsetL4+4, 2 }},
		{name: "of a protocol of no interest", change: func(_ *vnet, f *[]byte) { (*f)[offsetNext] = unix.IPPROTO_GRE }},
		{name: "behind options", change: func(h *vnet, f *[]byte) {
			*f = insertHeader(*f, nextDestination, options(0, 8))
			h.CsumStart += 8
		}},
		{name: "behind options, from within udp's header on", reason: refused, change: func(h *vnet, f *[]byte) {
			*f = insertHeader(*f, nextDestination, options(0, 8))
			h.CsumStart = offsetL4 + 15
		}},
		{name: "of a first fragment", reason: refused, change: func(h *vnet, f *[]byte) {
			*f = insertHeader(*f, nextFragment, fragment(0, 0, true))
			h.CsumStart += 8
		}},
		{name: "of a later fragment", reason: refused, change: func(h *vnet, f *[]byte) {
			*f = insertHeader(*f, nextFragment, fragment(0, 1448, true))
			h.CsumStart += 8
		}},
		{name: "in tcp", reason: refused, shot: func(w *world) shot {
			return from(w.client, w.server.addr(), protocolTCP, tcp(1, 2, flagACK, 3, 4, pattern(80)...))
		}},
		{name: "in icmp", reason: refused, shot: func(w *world) shot {
			return from(w.client, w.server.addr(), protocolICMP, echo(pattern(80)...))
		}},
		{name: "through a vip", reason: refused, shot: func(w *world) shot {
			return from(w.client, vip(), protocolUDP, udp(clientPort, datagramPort, pattern(80)...))
		}},
	}
}

// inner is the header for the checksum of a TCP segment 40 bytes into a datagram.
func inner() vnet { return vnet{Flags: vnetNeedsCsum, CsumStart: offsetL4 + 48, CsumOffset: 16} }

func tunnelled(w *world) shot {
	return from(w.client, w.server.addr(), protocolUDP, udp(4789, 4789, pattern(80)...))
}

// What a tunnel between Machines leaves to the kernel lies where nothing was checked,
// and must not be translated.
func TestInnerChecksum(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	client, server := newTap(t, w, w.client, true, 0), newTap(t, w, w.server, false, 0)
	for _, r := range innerRows() {
		t.Run(r.name, func(t *testing.T) {
			w.t, client.t, server.t = t, t, t
			if r.shot == nil {
				r.shot = tunnelled
			}
			frame, header := r.shot(w).frame, inner()
			if r.change != nil {
				r.change(&header, &frame)
			}
			before := w.counts()
			client.send(header, frame)
			want := outcome{reason: r.reason}
			if r.reason == 0 {
				want.to = w.server
				_, got := server.receive()
				if diff := cmp.Diff(dissect(plain(complete(header, frame), w.server)), dissect(got)); diff != "" {
					t.Errorf("the frame received (-want +got):\n%s", diff)
				}
			}
			expected := w.expectedCounts(before, shot{ifindex: w.client.ifindex, frame: frame}, want)
			if diff := cmp.Diff(expected, w.counts(), ignoreLayout); diff != "" {
				t.Errorf("counters afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

// An error about such a packet quotes it as it would have arrived.
func TestErrorAboutInnerChecksum(t *testing.T) {
	w := newWorld(t)
	client := newTap(t, w, w.client, true, 0)
	s := tunnelled(w)
	s.frame[offsetHop] = 1
	client.send(inner(), s.frame)
	_, got := client.receive()
	requireChecksums(t, got)
	s.frame = complete(inner(), s.frame)
	if diff := cmp.Diff(dissect(errorWith(icmpTimeExceeded, 0, 0)(w, s)), dissect(got)); diff != "" {
		t.Errorf("the answer (-want +got):\n%s", diff)
	}
}

// vxlan gives a guest a tunnel to a peer, with an IPv4 address in it.
func (g *guest) vxlan(peer *guest, address netip.Prefix) {
	g.t.Helper()
	inside, err := netlink.NewHandleAt(g.namespace)
	must(g.t, err)
	defer inside.Close()
	way, err := inside.LinkByName("eth0")
	must(g.t, err)
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = "tunnel", testMTU-100
	must(g.t, inside.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attributes, VxlanId: 7, VtepDevIndex: way.Attrs().Index, Port: 4789, Learning: true,
		SrcAddr: g.addr().AsSlice(), Group: peer.addr().AsSlice(),
	}))
	device, err := inside.LinkByName("tunnel")
	must(g.t, err)
	must(g.t, inside.LinkSetUp(device))
	must(g.t, inside.AddrAdd(device, &netlink.Addr{IPNet: &net.IPNet{
		IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen()),
	}}))
}

// TCP in a tunnel between two Machines, whose kernels leave its checksums and its
// segmentation to be done.
func TestLiveTunnel(t *testing.T) {
	const size = 1 << 20
	w := newWorld(t)
	client, server := newGuest(t, w, w.client), newGuest(t, w, w.server)
	address := netip.MustParseAddrPort("10.0.0.2:80")
	client.vxlan(server, netip.MustParsePrefix("10.0.0.1/24"))
	server.vxlan(client, netip.PrefixFrom(address.Addr(), 24))
	var listener net.Listener
	server.do(func() (err error) {
		listener, err = net.Listen("tcp4", address.String())
		return err
	})
	t.Cleanup(func() { must(t, listener.Close()) })
	must(t, listener.(*net.TCPListener).SetDeadline(time.Now().Add(2*patience)))
	transfer(t, client, address, listener, size)
	if drops := w.counts().Drops; drops["checksum_offload"] != 0 || drops["too_big"] != 0 {
		t.Errorf("packets of the tunnel were dropped: %v", drops)
	}
}
