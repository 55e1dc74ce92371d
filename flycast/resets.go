package flycast

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"

	"github.com/sixpn/sixpn/maps"
)

// ResetSource is where flows that lost their backend are heard of: maps.Tables.
type ResetSource interface {
	ResetEvents(ctx context.Context, handle func(maps.ResetEvent) error) error
}

// PacketSender sends a whole IPv6 packet into the router by the host port:
// netns.RawSocket.
type PacketSender interface {
	Send(packet []byte) error
}

// Resets makes clients notice that their backend is gone. A reset must carry a
// sequence number that only the client and its backend know, so the client is made to
// say it: it answers a segment from outside its window with what it expects (RFC 9293,
// 3.10.7.4), and that answer meets a flow that is gone, for which the router resets
// with the right number.
type Resets struct {
	Source ResetSource
	Sender PacketSender
	Log    *slog.Logger
}

// Run works until ctx ends; it returns nil then.
func (r *Resets) Run(ctx context.Context) error {
	if r.Source == nil || r.Sender == nil || r.Log == nil {
		return errors.New("flycast: Resets needs a source, a sender and a logger: give all three")
	}
	return r.Source.ResetEvents(ctx, func(event maps.ResetEvent) error {
		// Two that are half the numbers apart: one at least is outside any window.
		sequence := rand.Uint32()
		for _, s := range []uint32{sequence, sequence + 1<<31} {
			if err := r.Sender.Send(BareACK(event.VIP, event.Client, s)); err != nil {
				// The client learns it from its own next packet.
				r.Log.Warn("a client was not told that its backend is gone", "client", event.Client, "vip", event.VIP, "error", err)
				return nil
			}
		}
		return nil
	})
}

// Lengths of headers, in bytes.
const (
	ipv6Header = 40
	tcpHeader  = 20
)

// BareACK is an IPv6 packet with a TCP segment that has the ACK flag, no data and this
// sequence number. Both addresses must be IPv6.
func BareACK(source, destination netip.AddrPort, sequence uint32) []byte {
	const (
		version, hopLimit, protocolTCP = 6, 64, 6
		flagACK                        = 0x10
	)
	packet := make([]byte, ipv6Header+tcpHeader)
	packet[0] = version << 4
	binary.BigEndian.PutUint16(packet[4:], tcpHeader)
	packet[6], packet[7] = protocolTCP, hopLimit
	from, to := source.Addr().As16(), destination.Addr().As16()
	copy(packet[8:], from[:])
	copy(packet[24:], to[:])

	tcp := packet[ipv6Header:]
	binary.BigEndian.PutUint16(tcp[0:], source.Port())
	binary.BigEndian.PutUint16(tcp[2:], destination.Port())
	binary.BigEndian.PutUint32(tcp[4:], sequence)
	tcp[12] = tcpHeader / 4 << 4
	tcp[13] = flagACK

	// RFC 9293, 3.1: the pseudo header is the addresses, the length and the protocol.
	sum := uint32(tcpHeader + protocolTCP)
	for i := 8; i < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return packet
}
