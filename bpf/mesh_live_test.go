package bpf_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/internal/nettest/await"
)

// newTun makes a device without link layer the mesh of a world, its packets with the
// header and the offloads that a userspace WireGuard asks for.
func newTun(t *testing.T, w *world) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	must(t, err)
	name := fmt.Sprintf("tun%d", taps.Add(1))
	request, err := unix.NewIfreq(name)
	must(t, err)
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	must(t, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6))
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { _ = file.Close() })
	w.meshBy(t, name)
	return file
}

// meshBy makes a device the mesh of the world.
func (w *world) meshBy(t *testing.T, name string) {
	t.Helper()
	device, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetMTU(device, testMTU))
	device = raiseWith(t, w.SixpnMesh, name)
	w.meshIs(uint32(device.Attrs().Index), testMTU)
}

// meshIs has the world's way to other hosts be a real device.
func (w *world) meshIs(ifindex uint32, mtu uint16) {
	w.t.Helper()
	withMesh(w)
	must(w.t, bpf.PortSlots(w.PortSlots).Delete(w.mesh.ifindex))
	w.mesh.ifindex = ifindex
	w.setMeshPort()
	w.setMesh(mtu)
}

// carry brings every packet of one device to the other, as a tunnel does, which leaves no
// checksum half done. Each must be of one host and to the other, by its prefix.
func carry(t *testing.T, from, to *os.File, source, destination sixpn.Host) (large func() bool) {
	t.Helper()
	segments := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		data := make([]byte, 1<<16+vnetSize)
		for {
			n, err := from.Read(data)
			if err != nil {
				return // the device is closed
			}
			packet := data[vnetSize:n]
			was, _ := netip.AddrFromSlice(packet[8:24])
			will, _ := netip.AddrFromSlice(packet[24:40])
			if !source.MeshPrefix().Contains(was) || !destination.MeshPrefix().Contains(will) {
				t.Errorf("a packet of %s to %s is on the way from host %s to %s", was, will, source, destination)
			}
			var header vnet
			_, _ = binary.Decode(data, binary.NativeEndian, &header)
			if header.GSOType != 0 {
				select {
				case segments <- struct{}{}:
				default:
				}
			} else {
				copy(packet, complete(header, packet))
				clear(data[:vnetSize])
			}
			if _, err := to.Write(data[:n]); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = from.Close()
		<-done
	})
	return func() bool { return len(segments) > 0 }
}

// twoHosts are two routers with a Machine each, and a tunnel between them.
func twoHosts(t *testing.T) (near, distant *world, client, server *guest, large func() bool) {
	t.Helper()
	near = newWorld(t)
	distant = newWorld(t, func(s *settings) { s.host = farHost })
	flycastWorld(near)
	there, here := newTun(t, distant), newTun(t, near)
	large = carry(t, here, there, thisHost, farHost)
	carry(t, there, here, farHost, thisHost)
	return near, distant, newGuest(t, near, near.client), newGuest(t, distant, distant.server), large
}

// A probe of another host is answered before the agent hears of it, while there is none too.
func TestLiveMeshProbe(t *testing.T) {
	w := newWorld(t)
	tunnel := newTun(t, w)
	probe := fromAs(w.mesh, sixpn.AgentAddr(0, farHost), sixpn.AgentAddr(0, thisHost), protocolICMP, echo(pattern(500)...))
	_, err := tunnel.Write(slices.Concat(make([]byte, vnetSize), turned(probe.frame)[offsetIP:]))
	must(t, err)
	must(t, tunnel.SetReadDeadline(time.Now().Add(patience)))
	data := make([]byte, 2000)
	n, err := tunnel.Read(data)
	must(t, err)
	if diff := cmp.Diff(dissect(turned(echoed(w, probe))), dissect(slices.Concat(make([]byte, offsetType), []byte{0x86, 0xdd}, data[vnetSize:n]))); diff != "" {
		t.Errorf("the answer (-want +got):\n%s", diff)
	}
}

// elsewhere makes a Machine of another host the backend of the stream.
func elsewhere(w *world, m *member) {
	w.changeBackend(streamBackend, func(b *bpf.RouterBackend) {
		b.Network, b.Host, b.Machine = uint32(m.network), uint32(m.host), uint32(m.machine)
	})
}

func TestLiveMesh(t *testing.T) {
	near, distant, client, server, large := twoHosts(t)
	meet(t, near, distant, client, server)
	if !large() {
		t.Error("no packet was a large segment: the offloads are lost")
	}
}

// meet has the Machines of two hosts reach each other, and nobody else.
func meet(t *testing.T, near, distant *world, client, server *guest) {
	t.Helper()
	const size = 4 << 20
	listener := server.listen(backendPort)
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(server.addr(), backendPort), streamVIP} {
		elsewhere(near, distant.server)
		transfer(t, client, to, listener, size)
	}
	if who := ping(t, client, server.addr()); who != server.addr() {
		t.Errorf("the echo was answered by %s", who)
	}
	foreign := netip.AddrPortFrom(sixpn.MachineAddr(blue, farHost, distant.foreign.machine), 1)
	conn, err := client.dial("udp6", foreign)
	must(t, err)
	before := near.counts().Drops["other_network"]
	_, err = conn.Write([]byte{1})
	must(t, err)
	await.True(t, "a packet to another network's Machine is dropped", func() bool {
		return near.counts().Drops["other_network"] == before+1
	})
	for name, w := range map[string]*world{"near": near, "far": distant} {
		for _, reason := range []string{"wall", "spoofed_source", "internal", "checksum_offload", "too_big"} {
			if n := w.counts().Drops[reason]; n != 0 {
				t.Errorf("the %s host dropped %d packets for %s", name, n, reason)
			}
		}
	}
}

// Across networks there is the VIP, and nothing without the backend host's allocation.
func TestLiveMeshAcrossNetworks(t *testing.T) {
	near, distant, client, _, _ := twoHosts(t)
	foreign := newGuest(t, distant, distant.foreign)
	elsewhere(near, distant.foreign)
	streamService(func(s *bpf.RouterService) { s.Flags = 1 })(near)
	distant.allocate(red, distant.foreign, protocolTCP, backendPort)
	transfer(t, client, streamVIP, foreign.listen(backendPort), 1<<20)
	near.requireLedger(t)

	distant.empty(distant.Allocations)
	before := distant.counts().Drops["other_network"]
	dialed := make(chan error)
	go func() {
		conn, err := client.dial("tcp6", streamVIP)
		if err == nil {
			_ = conn.Close()
		}
		dialed <- err
	}()
	await.True(t, "its segment is dropped at the backend's host", func() bool {
		return distant.counts().Drops["other_network"] > before
	})
	// With it again, the next segment of the same connection arrives.
	distant.allocate(red, distant.foreign, protocolTCP, backendPort)
	if err := <-dialed; err != nil {
		t.Errorf("with the allocation again: %v", err)
	}
}

// The way narrows at either host's device or between them, and both sides learn it.
func TestLiveMeshPathMTU(t *testing.T) {
	for name, narrow := range map[string]func(near, distant *world){
		"the mesh":            func(near, _ *world) { near.setMesh(1300) },
		"the server's device": func(_, distant *world) { distant.setDevice(distant.server, 1300) },
		"the client's device": func(near, _ *world) { near.setDevice(near.client, 1290) },
		"everywhere": func(near, distant *world) {
			near.setMesh(1350)
			near.setDevice(near.client, 1290)
			distant.setDevice(distant.server, 1300)
		},
	} {
		t.Run(name, func(t *testing.T) {
			near, distant, client, server, _ := twoHosts(t)
			narrow(near, distant)
			elsewhere(near, distant.server)
			listener := server.listen(backendPort)
			transfer(t, client, streamVIP, listener, 1<<20)
			transfer(t, client, netip.AddrPortFrom(server.addr(), backendPort), listener, 1<<20)
			if near.counts().Drops["too_big"]+distant.counts().Drops["too_big"] == 0 {
				t.Error("no packet was too big: the path is not narrow")
			}
		})
	}
}

// Errors of the other host's router reach the socket that caused them.
func TestLiveMeshErrors(t *testing.T) {
	near, distant, client, _, _ := twoHosts(t)
	nobody := netip.AddrPortFrom(sixpn.MachineAddr(red, farHost, 0x000b0099), 7)
	conn := client.listenPacket("ip6:ipv6-icmp", "::")
	socket, err := client.dial("udp6", nobody)
	must(t, err)
	_, err = socket.Write(pattern(500))
	must(t, err)
	who, data := message(t, conn, icmpUnreachable)
	if want := sixpn.AgentAddr(red, farHost); who != want {
		t.Errorf("%s says that nobody is there, want %s", who, want)
	}
	if quoted, _ := netip.AddrFromSlice(data[32:48]); quoted != nobody.Addr() {
		t.Errorf("the quote is of a packet to %s, want %s", quoted, nobody.Addr())
	}
	// The backend's own kernel refuses, and the client hears it from the VIP.
	elsewhere(near, distant.server)
	if _, err := client.dial("tcp6", streamVIP); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connecting to a backend that does not listen: %v, want refused", err)
	}
	near.put(near.Services, serviceKey(protocolUDP, datagramPort), near.service(2, near.addBackend(distant.server, datagramInner, 2)))
	asked, err := client.dial("udp6", datagramVIP)
	must(t, err)
	_, err = asked.Write(pattern(100))
	must(t, err)
	if _, err := asked.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a datagram to a backend that does not listen: %v, want refused", err)
	}
}
