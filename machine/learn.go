package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Where things are in an Ethernet frame with an IPv6 packet (RFC 2464, RFC 8200), and
// in a neighbour solicitation after that (RFC 4861, 4.3).
const (
	frameSource      = 6
	frameType        = 12
	frameNextHeader  = 14 + 6
	frameHopLimit    = 14 + 7
	frameIPSource    = 14 + 8
	frameICMP        = 14 + 40
	frameTarget      = frameICMP + 8
	typeSolicitation = 135
)

// hearPause is the least time from one frame that is looked at to the next: a guest
// that floods the router with what is not its own costs the agent no more than that.
const hearPause = time.Millisecond

// hearing listens for the hardware address of the guest behind a device.
type hearing struct {
	socket *os.File
	heard  <-chan net.HardwareAddr
}

// hear returns the hardware address from the first frame in which the Machine at addr
// speaks, or asks whether somebody has its address. A guest of which nothing was ever
// heard is not reached. The socket sees frames before the router does, also while
// the device is down still, so none is missed; it is closed after the first.
func hear(ctx context.Context, ifindex uint32, addr netip.Addr) (*hearing, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_PACKET", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err == nil {
		// All protocols: what is bound to one sees only what the router lets pass,
		// which is nothing.
		var all [2]byte
		binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(all[:]), Ifindex: int(ifindex)})
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind AF_PACKET", err)
	}
	h := &hearing{socket: os.NewFile(uintptr(fd), "packets")}
	heard := make(chan net.HardwareAddr, 1)
	h.heard = heard
	stop := context.AfterFunc(ctx, func() { h.socket.Close() })
	go func() {
		defer stop()
		defer h.socket.Close()
		frame := make([]byte, 256)
		for {
			n, err := h.socket.Read(frame)
			if errors.Is(err, unix.ENETDOWN) {
				continue // said once each time that the device goes down
			}
			if err != nil {
				return
			}
			if mac, ok := speaker(frame[:n], addr); ok {
				heard <- mac
				return
			}
			pause(ctx, hearPause)
		}
	}()
	return h, nil
}

// speaker is the hardware address of a frame's sender, if that is the Machine at addr.
func speaker(frame []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	if len(frame) < frameICMP || binary.BigEndian.Uint16(frame[frameType:]) != unix.ETH_P_IPV6 {
		return nil, false
	}
	mac := net.HardwareAddr(append([]byte(nil), frame[frameSource:frameType]...))
	if mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
		return nil, false
	}
	own := netip.PrefixFrom(addr, 112)
	source := netip.AddrFrom16([16]byte(frame[frameIPSource:]))
	if own.Contains(source) {
		return mac, true
	}
	asks := source == netip.IPv6Unspecified() && len(frame) >= frameTarget+16 && frame[frameHopLimit] == 255 &&
		frame[frameNextHeader] == unix.IPPROTO_ICMPV6 && frame[frameICMP] == typeSolicitation
	return mac, asks && own.Contains(netip.AddrFrom16([16]byte(frame[frameTarget:])))
}
