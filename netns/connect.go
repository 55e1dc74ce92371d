package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Connect opens a TCP connection inside the namespace, from a local address that may
// be configured nowhere. Unlike Dial it holds no thread while it waits, so that many
// connections may be under way at once. The port is chosen as late as possible: one
// address reaches as many servers as there are, however many ports are in use.
func (n *Namespace) Connect(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	conn, err := n.connect(ctx, local, remote)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", remote, err)
	}
	return conn, nil
}

func (n *Namespace) connect(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var file *os.File
	if err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := begin(fd, local, remote); err != nil {
			_ = unix.Close(fd)
			return err
		}
		// After connect: a socket that does nothing yet would count as ready.
		file = os.NewFile(uintptr(fd), "tcp6")
		return nil
	}); err != nil {
		return nil, err
	}
	defer file.Close() // net.FileConn has a descriptor of its own
	if err := established(ctx, file); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// begin binds a socket and sends its SYN.
func begin(fd int, local netip.Addr, remote netip.AddrPort) error {
	if err := FreeBind(fd); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_BIND_ADDRESS_NO_PORT", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: local.As16()}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	err := unix.Connect(fd, &unix.SockaddrInet6{Addr: remote.Addr().As16(), Port: int(remote.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", err)
	}
	return nil
}

// established waits until a connection is there, or is refused, or ctx ends.
func established(ctx context.Context, file *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err != nil {
			failed = os.NewSyscallError("connect", err)
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil // else ENOTCONN: the answer is still to come
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}
