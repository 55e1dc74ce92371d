package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/internal/nettest"
	"github.com/sixpn/sixpn/machine"
)

// attacker is root inside a Machine's network namespace: it writes whole frames
// to the Machine's device, whatever the Machine's own kernel would think of them.
type attacker struct {
	file        *os.File // packet socket on eth0
	router, own net.HardwareAddr
}

// IP protocol numbers and ICMPv6 types.
const (
	protocolUDP    = 17
	protocolICMPv6 = 58

	echoRequest           = 128
	echoReply             = 129
	neighbourSolicitation = 135
	neighbourAdvert       = 136

	ethernetHeader = 14
	ipv6Header     = 40
	udpHeader      = 8
)

// enter opens a packet socket inside a Machine's namespace.
func enter(m *nettest.Machine) (*attacker, error) {
	namespace, err := m.Namespace()
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	a := &attacker{}
	a.router, a.own = machine.MACs(m.ID)
	err = namespace.Do(func() error {
		device, err := net.InterfaceByName(machine.GuestDevice)
		if err != nil {
			return err
		}
		all := int(hostToNet16(unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		if err != nil {
			return os.NewSyscallError("socket AF_PACKET", err)
		}
		a.file = os.NewFile(uintptr(fd), "packet")
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: device.Index}))
	})
	if err != nil && a.file != nil {
		a.file.Close()
	}
	return a, err
}

func hostToNet16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (a *attacker) close() { a.file.Close() }

// send writes an IPv6 packet as one frame to the router.
func (a *attacker) send(packet []byte) error {
	frame := append(append(append([]byte{}, a.router...), a.own...), 0x86, 0xdd)
	_, err := a.file.Write(append(frame, packet...))
	return err
}

// receive calls match with every IPv6 packet that arrives, until it says that it
// has seen enough or the time is over.
func (a *attacker) receive(ctx context.Context, limit time.Duration, match func(packet []byte) (enough bool)) error {
	deadline := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := a.file.SetReadDeadline(deadline); err != nil {
		return err
	}
	frame := make([]byte, 64<<10)
	for {
		n, err := a.file.Read(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		// What this namespace itself sends comes here too.
		if n < ethernetHeader+ipv6Header || frame[12] != 0x86 || frame[13] != 0xdd || string(frame[6:12]) == string(a.own) {
			continue
		}
		if match(frame[ethernetHeader:n]) {
			return nil
		}
	}
}

// packet is an IPv6 packet with a right checksum at an offset of its payload.
func packet(source, destination netip.Addr, protocol byte, hopLimit byte, payload []byte, checksum int) []byte {
	p := make([]byte, ipv6Header, ipv6Header+len(payload))
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	p[6], p[7] = protocol, hopLimit
	from, to := source.As16(), destination.As16()
	copy(p[8:], from[:])
	copy(p[24:], to[:])
	p = append(p, payload...)
	// RFC 8200, 8.1: the pseudo header is the addresses, the length and the protocol.
	sum := uint32(len(payload)) + uint32(protocol)
	for i := 8; i+1 < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	if len(p)%2 == 1 {
		sum += uint32(p[len(p)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[ipv6Header+checksum:], ^uint16(sum))
	return p
}

// udpPacket is a datagram.
func udpPacket(source, destination netip.AddrPort, content string) []byte {
	datagram := make([]byte, udpHeader, udpHeader+len(content))
	binary.BigEndian.PutUint16(datagram[0:], source.Port())
	binary.BigEndian.PutUint16(datagram[2:], destination.Port())
	binary.BigEndian.PutUint16(datagram[4:], uint16(udpHeader+len(content)))
	return packet(source.Addr(), destination.Addr(), protocolUDP, 64, append(datagram, content...), 6)
}

// echoPacket is an ICMPv6 echo request.
func echoPacket(source, destination netip.Addr, id, number uint16) []byte {
	message := []byte{echoRequest, 0, 0, 0}
	message = binary.BigEndian.AppendUint16(message, id)
	message = binary.BigEndian.AppendUint16(message, number)
	return packet(source, destination, protocolICMPv6, 64, message, 2)
}

// solicitation asks for the hardware address of target (RFC 4861, 4.3).
func (a *attacker) solicitation(source, target netip.Addr) []byte {
	b := target.As16()
	group := netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	message := append([]byte{neighbourSolicitation, 0, 0, 0, 0, 0, 0, 0}, b[:]...)
	message = append(append(message, 1, 1), a.own...) // source link-layer address
	return packet(source, group, protocolICMPv6, 255, message, 2)
}

// repeat sends all the probes of an attack, which make makes.
func (a *attacker) repeat(make func(i int) []byte) error {
	for i := range probes {
		if err := a.send(make(i)); err != nil {
			return fmt.Errorf("send an attack probe: %w", err)
		}
	}
	return nil
}
