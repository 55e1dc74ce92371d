package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// SocketOption changes a socket between its creation and bind.
type SocketOption func(fd int) error

// FreeBind (IPV6_FREEBIND) lets a socket bind to, and answer from, an address
// that is configured nowhere. UDP replies need it, else sending gives EINVAL.
func FreeBind(fd int) error {
	return os.NewSyscallError("setsockopt IPV6_FREEBIND", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1))
}

// ListenPacket is net.ListenPacket inside the namespace, for "udp6" and an
// address literal such as "[::]:53". The socket outlives the call, not the pin.
func (n *Namespace) ListenPacket(ctx context.Context, network, address string, options ...SocketOption) (conn net.PacketConn, err error) {
	err = n.Do(func() error {
		config := net.ListenConfig{Control: control(options)}
		conn, err = config.ListenPacket(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a socket in a namespace: %w", err)
	}
	return conn, nil
}

// Listen is net.Listen inside the namespace, for "tcp6" and an address literal.
func (n *Namespace) Listen(ctx context.Context, network, address string, options ...SocketOption) (listener net.Listener, err error) {
	err = n.Do(func() error {
		config := net.ListenConfig{Control: control(options)}
		listener, err = config.Listen(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a listener in a namespace: %w", err)
	}
	return listener, nil
}

// Dial is net.Dial inside the namespace, from the local address, which may be
// one that is configured nowhere, with FreeBind.
func (n *Namespace) Dial(ctx context.Context, network string, local net.Addr, address string, options ...SocketOption) (conn net.Conn, err error) {
	err = n.Do(func() error {
		// Happy eyeballs would dial on another goroutine, outside the namespace.
		dialer := net.Dialer{LocalAddr: local, Control: control(options), FallbackDelay: -1}
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect from a namespace: %w", err)
	}
	return conn, nil
}

func control(options []SocketOption) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) {
			for _, option := range options {
				if failed = option(int(fd)); failed != nil {
					return
				}
			}
		}); err != nil {
			return err
		}
		return failed
	}
}

// RawSocket sends whole IPv6 packets, header included, with any source address.
type RawSocket struct{ file *os.File }

// Raw opens a RawSocket inside the namespace. It receives nothing.
func (n *Namespace) Raw() (*RawSocket, error) {
	var socket *RawSocket
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("open a raw socket in a namespace: %w", err)
		}
		socket = &RawSocket{os.NewFile(uintptr(fd), "raw6")}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1); err != nil {
			_ = socket.Close()
			return fmt.Errorf("setsockopt IPV6_HDRINCL: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return socket, nil
}

// Send sends one packet to the destination that its header names. The checksum
// of the transport header is the caller's.
func (s *RawSocket) Send(packet []byte) error {
	const header = 40
	if len(packet) < header || packet[0]>>4 != 6 {
		return fmt.Errorf("a raw packet of %d bytes has no IPv6 header", len(packet))
	}
	destination := netip.AddrFrom16([16]byte(packet[24:header]))
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), packet, 0, &unix.SockaddrInet6{Addr: destination.As16()})
		return sent != unix.EAGAIN
	}); err != nil {
		return err
	}
	if sent != nil {
		return fmt.Errorf("send a raw packet to %s: %w", destination, sent)
	}
	return nil
}

// Close closes the socket.
func (s *RawSocket) Close() error { return s.file.Close() }
