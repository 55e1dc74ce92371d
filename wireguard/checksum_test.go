package wireguard_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
)

// zeroSum is a payload with which a UDP datagram's checksum comes out as zero, so that
// 0xffff must be sent (RFC 768; RFC 8200, 8.1).
func zeroSum(from, to netip.AddrPort) []byte {
	const length = 8 + 2
	sum := uint32(17 + 2*length + int(from.Port()) + int(to.Port()))
	for _, address := range []netip.Addr{from.Addr(), to.Addr()} {
		raw := address.As16()
		for i := 0; i < len(raw); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(raw[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return binary.BigEndian.AppendUint16(nil, uint16(0xffff-sum))
}

func TestChecksumThatComesOutAsZero(t *testing.T) { engines(t, checksumThatComesOutAsZero) }

func checksumThatComesOutAsZero(t *testing.T, a, b *host) {
	b.reach(a)
	var server, client *net.UDPConn
	listen := func(h *host) (conn *net.UDPConn) {
		h.in(func() (err error) {
			conn, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.inside(), 0)))
			return err
		})
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	server, client = listen(b), listen(a)
	from, to := client.LocalAddr().(*net.UDPAddr).AddrPort(), server.LocalAddr().(*net.UDPAddr).AddrPort()
	payload := zeroSum(from, to)
	got := make([]byte, 100)
	await.True(t, "the datagram arrives", func() bool {
		if _, err := client.WriteToUDPAddrPort(payload, to); err != nil {
			t.Fatal(err)
		}
		if err := server.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := server.Read(got)
		return err == nil && string(got[:n]) == string(payload)
	})
}
