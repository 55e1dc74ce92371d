package e2e_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/netns"
)

// testSegments: datagrams that the sender's kernel was given as one piece (UDP_SEGMENT)
// reach a server on the other host each by itself, directly and through Flycast, and go
// into the mesh in one piece.
func testSegments(ctx context.Context, t *testing.T, f *twoHosts) {
	t.Helper()
	const datagrams, size = 20, 1000
	vip := nettest.Get[netip.Addr](t)(f.Hosts[0].AllocateVIP(ctx, f.there.App, ""))
	nettest.Must(t, f.Settle(ctx))
	inside := nettest.Get[*netns.Namespace](t)(f.here.Namespace())
	defer inside.Close()
	for name, target := range map[string]string{"the Machine": on(f.there.Addr, udpPort), "its VIP": on(vip, udpPort)} {
		conn := nettest.Get[net.Conn](t)(inside.Dial(ctx, "udp6", nil, target))
		defer conn.Close()
		raw, err := conn.(*net.UDPConn).SyscallConn()
		nettest.Must(t, err)
		nettest.Must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }))
		nettest.Must(t, err)
		before, err := f.Hosts[0].MeshDevice()
		nettest.Must(t, err)
		var all []byte
		for i := range datagrams {
			all = append(all, bytes.Repeat([]byte{byte(i)}, size)...)
		}
		_, err = conn.Write(all)
		nettest.Must(t, err)
		nettest.Must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		seen, answer := map[byte]int{}, make([]byte, 2*size)
		for range datagrams {
			n, err := conn.Read(answer)
			if err != nil {
				t.Fatalf("to %s: after the answers %v: %v", name, seen, err)
			}
			id, body, _ := bytes.Cut(answer[:n], []byte(" "))
			if string(id) != f.there.ID || !bytes.Equal(body, bytes.Repeat(body[:1], size)) {
				t.Fatalf("to %s: the answer is %q", name, answer[:n])
			}
			seen[body[0]]++
		}
		if len(seen) != datagrams {
			t.Errorf("to %s: the datagrams that were answered are %v, expected each once", name, seen)
		}
		after, err := f.Hosts[0].MeshDevice()
		nettest.Must(t, err)
		if packets := after.Statistics.TxPackets - before.Statistics.TxPackets; packets >= datagrams && !after.Kernel {
			t.Errorf("to %s: %d datagrams went into the mesh as %d packets, expected fewer", name, datagrams, packets)
		}
	}
}
