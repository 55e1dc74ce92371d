package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/netns"
)

// patience is how long a test waits for what takes a few milliseconds: longer on a machine
// that is said to be slower than usual, as internal/nettest has it.
var patience = 5 * time.Second * max(1, slowness())

func slowness() time.Duration {
	factor, _ := strconv.Atoi(os.Getenv("SIXPN_TEST_SLOWNESS"))
	return time.Duration(factor)
}

// liveWorld is flycastWorld with guests for its Machines.
func liveWorld(t *testing.T) (w *world, client, server, foreign *guest) {
	t.Helper()
	w = newWorld(t)
	flycastWorld(w)
	return w, newGuest(t, w, w.client), newGuest(t, w, w.server), newGuest(t, w, w.foreign)
}

var (
	streamVIP   = netip.AddrPortFrom(vip(), vipPort)
	datagramVIP = netip.AddrPortFrom(vip(), datagramPort)
)

// transfer sends bytes from a client to a listener and back, and compares them.
func transfer(t *testing.T, from *guest, to netip.AddrPort, listener net.Listener, size int) {
	t.Helper()
	data := pattern(size)
	served := make(chan error, 1)
	go func() { served <- echoOnce(listener, size) }()
	conn, err := from.dial("tcp", to)
	if err != nil {
		t.Fatalf("connect to %s: %v", to, err)
	}
	must(t, conn.SetDeadline(time.Now().Add(2*patience)))
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		sent <- err
	}()
	got := make([]byte, size)
	if n, err := io.ReadFull(conn, got); err != nil {
		t.Fatalf("%d of %d bytes came back: %v", n, size, err)
	}
	must(t, <-sent)
	if !bytes.Equal(got, data) {
		t.Error("other bytes came back than were sent")
	}
	must(t, conn.Close())
	must(t, <-served)
}

func echoOnce(listener net.Listener, size int) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(conn, data); err != nil {
		return err
	}
	_, err = conn.Write(data)
	return err
}

// askDatagram sends one datagram and waits until it comes back.
func askDatagram(t *testing.T, from *guest, to netip.AddrPort, server net.PacketConn) {
	t.Helper()
	conn, err := from.dial("udp6", to)
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write(pattern(1000))
	must(t, err)
	data := make([]byte, 2000)
	must(t, server.SetDeadline(time.Now().Add(patience)))
	n, peer, err := server.ReadFrom(data)
	must(t, err)
	_, err = server.WriteTo(data[:n], peer)
	must(t, err)
	n, err = conn.Read(data)
	must(t, err)
	if !bytes.Equal(data[:n], pattern(1000)) {
		t.Error("another datagram came back than was sent")
	}
}

// offloads are the settings that change what frames look like on their way.
var offloads = map[string]map[netns.Feature]bool{
	"all":               {},
	"no tx checksum":    {netns.TxChecksum: false},
	"no rx checksum":    {netns.RxChecksum: false},
	"no tso":            {netns.TSO: false},
	"no tso, no gso":    {netns.TSO: false, netns.GSO: false},
	"gro":               {netns.GRO: true},
	"gro, no tso":       {netns.GRO: true, netns.TSO: false, netns.GSO: false},
	"gro, no checksums": {netns.GRO: true, netns.TxChecksum: false, netns.RxChecksum: false},
	"no checksums":      {netns.TxChecksum: false, netns.RxChecksum: false},
}

func TestLiveOffloads(t *testing.T) {
	const size = 4 << 20
	for name, features := range offloads {
		t.Run(name, func(t *testing.T) {
			w, client, server, _ := liveWorld(t)
			for feature, on := range features {
				client.offload(feature, on)
				server.offload(feature, on)
			}
			listener := server.listen(backendPort)
			transfer(t, client, streamVIP, listener, size)
			transfer(t, client, netip.AddrPortFrom(server.addr(), backendPort), listener, size)
			askDatagram(t, client, datagramVIP, server.listenPacket("udp6", netip.AddrPortFrom(server.addr(), datagramInner).String()))
			if got := w.counts().Drops["too_big"]; got != 0 {
				t.Errorf("%d frames were too big for a path of one MTU", got)
			}
		})
	}
}

// A reset and an unreachable built from half a checksum reach the socket at once.
func TestLiveRefused(t *testing.T) {
	for name, features := range offloads {
		t.Run(name, func(t *testing.T) {
			w, client, _, _ := liveWorld(t)
			for feature, on := range features {
				client.offload(feature, on)
			}
			begin := time.Now()
			_, err := client.dial("tcp6", netip.AddrPortFrom(vip(), 81))
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("connecting to a port without a service: %v, want refused", err)
			}
			w.put(w.Services, serviceKey(protocolTCP, vipPort), w.service(1))
			if _, err = client.dial("tcp6", streamVIP); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("connecting to a service without a backend: %v, want refused", err)
			}
			conn, err := client.dial("udp6", netip.AddrPortFrom(vip(), 81))
			must(t, err)
			must(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = conn.Write(pattern(1200))
			must(t, err)
			if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a datagram to a port without a service: %v, want refused", err)
			}
			if took := time.Since(begin); took > patience/2 {
				t.Errorf("the refusals took %v", took)
			}
		})
	}
}

// The way to the other side takes less than each side's device: both learn it through the VIP.
func TestLivePathMTU(t *testing.T) {
	const size = 1 << 20
	for name, features := range offloads {
		narrows := []string{"both"}
		if len(features) == 0 {
			narrows = []string{"server", "client", "both"}
		}
		for _, narrow := range narrows {
			t.Run(name+", narrow "+narrow, func(t *testing.T) {
				w, client, server, _ := liveWorld(t)
				for feature, on := range features {
					client.offload(feature, on)
					server.offload(feature, on)
				}
				if narrow != "client" {
					w.setDevice(w.server, 1300)
				}
				if narrow != "server" {
					w.setDevice(w.client, 1290)
				}
				listener := server.listen(backendPort)
				transfer(t, client, streamVIP, listener, size)
				transfer(t, client, netip.AddrPortFrom(server.addr(), backendPort), listener, size)
				if w.counts().Drops["too_big"] == 0 {
					t.Error("no frame was too big: the path is not narrow")
				}
			})
		}
	}
}

func TestLiveOwnBackend(t *testing.T) {
	w, client, _, _ := liveWorld(t)
	streamBackendOf(toClient)(w)
	transfer(t, client, streamVIP, client.listen(backendPort), 1<<20)
}

// Across networks there is the VIP's port and nothing else.
func TestLiveAcrossNetworks(t *testing.T) {
	w, client, _, foreign := liveWorld(t)
	crossNetwork(w)
	transfer(t, client, streamVIP, foreign.listen(backendPort), 1<<20)

	conn, err := client.dial("udp6", netip.AddrPortFrom(foreign.addr(), 1))
	must(t, err)
	before := w.counts().Drops["other_network"]
	for range 10 {
		_, err = conn.Write([]byte{1})
		must(t, err)
	}
	await.True(t, "ten datagrams are dropped at the wall", func() bool { return w.counts().Drops["other_network"] == before+10 })
}

// ping sends an echo request and returns who answered it.
func ping(t *testing.T, g *guest, to netip.Addr) netip.Addr {
	t.Helper()
	conn := g.listenPacket("ip6:ipv6-icmp", "::")
	destination := &net.IPAddr{IP: to.AsSlice()}
	if to.IsLinkLocalUnicast() {
		destination.Zone = "eth0"
	}
	g.do(func() error {
		_, err := conn.WriteTo(icmp(icmpEcho, 0, 0x00070001, pattern(56)...), destination)
		return err
	})
	who, _ := message(t, conn, icmpEchoReply)
	return who
}

// message waits for an ICMPv6 message of a type.
func message(t *testing.T, conn net.PacketConn, kind byte) (netip.Addr, []byte) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	data := make([]byte, 2000)
	for {
		n, peer, err := conn.ReadFrom(data)
		if err != nil {
			t.Fatalf("wait for an ICMPv6 message of type %d: %v", kind, err)
		}
		if data[0] == kind {
			address, _ := netip.AddrFromSlice(peer.(*net.IPAddr).IP)
			return address, data[:n]
		}
	}
}

func TestLivePing(t *testing.T) {
	_, client, server, _ := liveWorld(t)
	for _, to := range []netip.Addr{vip(), sixpn.Gateway, sixpn.DNS, sixpn.NetworkDNS(red), server.addr()} {
		if who := ping(t, client, to); who != to {
			t.Errorf("the echo to %s was answered by %s", to, who)
		}
	}
}

// A packet of one hop dies in the router, which says so in the agent's name.
func TestLiveHopLimit(t *testing.T) {
	w, client, server, _ := liveWorld(t)
	conn := client.listenPacket("ip6:ipv6-icmp", "::")
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(server.addr(), 33434), datagramVIP} {
		before := w.counts().Drops["hop_limit"]
		socket, err := client.dial("udp6", to)
		must(t, err)
		raw, err := socket.(*net.UDPConn).SyscallConn()
		must(t, err)
		var failed error
		must(t, raw.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 1)
		}))
		must(t, failed)
		_, err = socket.Write([]byte{1})
		must(t, err)
		who, data := message(t, conn, icmpTimeExceeded)
		if want := sixpn.AgentAddr(red, thisHost); who != want {
			t.Errorf("%s says that the packet died, want %s", who, want)
		}
		if quoted, _ := netip.AddrFromSlice(data[32:48]); quoted != to.Addr() || binary.BigEndian.Uint16(data[50:]) != to.Port() {
			t.Errorf("the quote is of a packet to %s, want %s", quoted, to)
		}
		if got := w.counts().Drops["hop_limit"] - before; got != 1 {
			t.Errorf("%d packets are counted, want 1", got)
		}
	}
}

// The kernel of a backend without a listener refuses; the client hears it from the VIP.
func TestLiveBackendRefuses(t *testing.T) {
	w, client, _, _ := liveWorld(t)
	if _, err := client.dial("tcp6", streamVIP); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connecting: %v, want refused", err)
	}
	conn, err := client.dial("udp6", datagramVIP)
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write([]byte{1})
	must(t, err)
	if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a datagram: %v, want refused by the backend's own error, translated", err)
	}
	w.requireLedger(t)
}

// An open connection lives on when new flows go elsewhere, and ends when its backend is gone.
func TestLiveBackendLeaves(t *testing.T) {
	w, client, server, _ := liveWorld(t)
	listener := server.listen(backendPort)
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := listener.Accept(); err == nil {
			accepted <- conn
		}
	}()
	conn, err := client.dial("tcp6", streamVIP)
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	peer := <-accepted
	exchange := func() error {
		if _, err := conn.Write([]byte("ask")); err != nil {
			return err
		}
		if _, err := io.ReadFull(peer, make([]byte, 3)); err != nil {
			return err
		}
		_, err := peer.Write([]byte("tell"))
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 4))
		}
		return err
	}
	must(t, exchange())
	w.put(w.Services, serviceKey(protocolTCP, vipPort), w.service(1))
	must(t, exchange())
	w.changeBackend(streamBackend, func(b *bpf.RouterBackend) { b.Flags = 1 })
	w.requirePass(t, patient, 1, 0, 1)
	_, err = conn.Write([]byte("ask"))
	must(t, err)
	if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after its backend is gone: %v, want a reset", err)
	}
}
