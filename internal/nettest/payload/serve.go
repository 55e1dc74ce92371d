package payload

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 64 << 10
	// What one socket can hold decides how long a reader may be kept off its CPU
	// before a datagram is lost that the network has delivered.
	socketBuffer = 4 << 20
)

// serve listens until the process is told to end.
//
//	serve [-tcp PORTS] [-tcp4 PORTS] [-udp PORTS] [-udp4 PORTS] [-sockets N] [-linger D] [-vanish]
//
// PORTS are separated by commas. Those of -tcp4 and -udp4 are listened on with IPv4
// only. Each UDP port gets N sockets that share it.
// After SIGTERM it goes on for D, as a server that finishes its work. With
// -vanish it then ends as if its host had lost power: no connection is closed by
// a segment of this side.
func serve(ctx context.Context, args []string, out io.Writer) error {
	var tcp, tcp4, udp, udp4 string
	var sockets int
	var linger time.Duration
	var vanish bool
	if _, err := flags(args, 0, "no argument", func(set *flag.FlagSet) {
		set.BoolVar(&vanish, "vanish", false, "")
		set.StringVar(&tcp, "tcp", "", "")
		set.StringVar(&tcp4, "tcp4", "", "")
		set.StringVar(&udp, "udp", "", "")
		set.StringVar(&udp4, "udp4", "", "")
		set.IntVar(&sockets, "sockets", 1, "")
		set.DurationVar(&linger, "linger", 0, "")
	}); err != nil {
		return err
	}
	id := os.Getenv("FLY_MACHINE_ID")
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, serving := errgroup.WithContext(serving)
	group.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
		case <-serving.Done():
			return nil
		}
		select {
		case <-time.After(linger):
		case <-serving.Done():
		}
		return nil
	})
	for _, kind := range []struct{ network, address, ports string }{{"tcp6", "::", tcp}, {"tcp4", "0.0.0.0", tcp4}} {
		for _, port := range split(kind.ports) {
			listener, err := net.Listen(kind.network, net.JoinHostPort(kind.address, port))
			if err != nil {
				return err
			}
			group.Go(func() error { return serveTCP(serving, listener, id, vanish, out) })
		}
	}
	for _, kind := range []struct{ network, address, ports string }{{"udp6", "::", udp}, {"udp4", "0.0.0.0", udp4}} {
		for _, port := range split(kind.ports) {
			for range sockets {
				packets, err := listenUDP(serving, kind.network, kind.address, port)
				if err != nil {
					return err
				}
				group.Go(func() error { return serveUDP(serving, packets, id) })
			}
		}
	}
	fmt.Fprintf(out, "%s serves tcp %q udp %q\n", id, tcp, udp)
	return group.Wait()
}

func split(ports string) []string {
	if ports == "" {
		return nil
	}
	return strings.Split(ports, ",")
}

func serveTCP(ctx context.Context, listener net.Listener, id string, vanish bool, out io.Writer) error {
	context.AfterFunc(ctx, func() { listener.Close() })
	// What is still open when the process ends is closed by the kernel, with a FIN.
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		fmt.Fprintf(out, "connection from %s\n", conn.RemoteAddr())
		open.Go(func() {
			end := func() { conn.Close() }
			if vanish {
				end = func() { silently(conn) }
			}
			context.AfterFunc(ctx, end)
			defer conn.Close() // the client's end, or after the other
			if _, err := fmt.Fprintf(conn, "%s %s\n", id, conn.RemoteAddr()); err == nil {
				_, _ = io.Copy(conn, conn) // until the client has enough
			}
		})
	}
}

// silently closes a connection without telling the other side: a socket under
// repair (tcp(7), TCP_REPAIR) sends nothing.
func silently(conn net.Conn) {
	if raw, err := conn.(*net.TCPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
	}
	conn.Close()
}

// listenUDP opens one of the sockets of a port.
func listenUDP(ctx context.Context, network, address, port string) (*net.UDPConn, error) {
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, fmt.Errorf("port %q: %w", port, err)
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		return errors.Join(raw.Control(func(fd uintptr) {
			failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		}), failed)
	}}
	conn, err := config.ListenPacket(ctx, network, net.JoinHostPort(address, port))
	if err != nil {
		return nil, err
	}
	packets := conn.(*net.UDPConn)
	return packets, packets.SetReadBuffer(socketBuffer)
}

func serveUDP(ctx context.Context, packets *net.UDPConn, id string) error {
	context.AfterFunc(ctx, func() { packets.Close() })
	buffer := append([]byte(id+" "), make([]byte, maxDatagram)...)
	prefix := len(id) + 1
	for {
		n, client, err := packets.ReadFromUDPAddrPort(buffer[prefix:])
		if err == nil {
			_, err = packets.WriteToUDPAddrPort(buffer[:prefix+n], client)
		}
		if ctx.Err() != nil {
			return nil
		}
		// An ICMPv6 error about an earlier answer says nothing about the next query.
		if err != nil && errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}
