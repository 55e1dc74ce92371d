package payload

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// PathMTU is what "path-mtu" saw.
type PathMTU struct {
	Device    int    `json:"device"` // MTU of the own device
	Before    int    `json:"before"` // the kernel's path MTU, bytes
	After     int    `json:"after"`  // after a datagram that was too big
	Refused   bool   `json:"refused"`
	Delivered bool   `json:"delivered"` // a datagram of the learned size got its answer
	Bulk      int    `json:"bulk"`      // bytes of a TCP stream that came back right
	Error     string `json:"error,omitempty"`
}

// pathMTU sends datagrams that may not be fragmented, larger than the path, until
// the network has said so, then one that fits; and a TCP stream.
//
//	path-mtu -size N -bulk N -udp PORT -tcp PORT ADDRESS
func pathMTU(ctx context.Context, args []string, out io.Writer) error {
	var size, bulk int
	var udp, tcp string
	var timeout time.Duration
	rest, err := flags(args, 1, "ADDRESS", func(set *flag.FlagSet) {
		set.IntVar(&size, "size", 4000, "")
		set.IntVar(&bulk, "bulk", 1<<20, "")
		set.StringVar(&udp, "udp", "9000", "")
		set.StringVar(&tcp, "tcp", "8080", "")
		set.DurationVar(&timeout, "timeout", patience, "")
	})
	if err != nil {
		return err
	}
	result := PathMTU{}
	if device, err := net.InterfaceByName("eth0"); err == nil {
		result.Device = device.MTU
	}
	if err := probePath(net.JoinHostPort(rest[0], udp), size, timeout, &result); err != nil {
		result.Error = err.Error()
	}
	if result.Bulk, err = bulkEcho(ctx, net.JoinHostPort(rest[0], tcp), bulk, timeout); err != nil && result.Error == "" {
		result.Error = "tcp: " + err.Error()
	}
	return report(out, result)
}

func probePath(address string, size int, timeout time.Duration, result *PathMTU) error {
	socket, err := net.Dial("udp6", address)
	if err != nil {
		return err
	}
	defer socket.Close()
	raw, err := socket.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	mtu := func() (value int, err error) {
		controlErr := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU) })
		return value, errors.Join(controlErr, os.NewSyscallError("getsockopt IPV6_MTU", err))
	}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	}); err != nil {
		return err
	}
	if err != nil {
		return os.NewSyscallError("setsockopt IPV6_MTU_DISCOVER", err)
	}
	if result.Before, err = mtu(); err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !result.Refused && time.Now().Before(deadline) {
		_, err := socket.Write(make([]byte, size))
		result.Refused = errors.Is(err, syscall.EMSGSIZE)
		if err != nil && !result.Refused {
			return err
		}
		<-ticker.C
	}
	if result.After, err = mtu(); err != nil {
		return err
	}
	const headers = 48 // IPv6 and UDP
	message := bytes.Repeat([]byte{7}, max(result.After-headers-64, 0))
	// More than one datagram may have been on its way: each has its error queued.
	_, err = socket.Write(message)
	for errors.Is(err, syscall.EMSGSIZE) && time.Now().Before(deadline) {
		_, err = socket.Write(message)
	}
	if err != nil {
		return err
	}
	if err := socket.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	buffer := make([]byte, maxDatagram)
	for {
		n, err := socket.Read(buffer)
		if errors.Is(err, syscall.EMSGSIZE) {
			continue // the queued error of a datagram before
		}
		if err != nil {
			return fmt.Errorf("no answer to a datagram of the learned size: %w", err)
		}
		if result.Delivered = bytes.HasSuffix(buffer[:n], message); result.Delivered {
			return nil
		}
	}
}

// bulkEcho sends a stream and counts the bytes that come back right.
func bulkEcho(ctx context.Context, address string, size int, timeout time.Duration) (int, error) {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp6", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(4 * timeout)); err != nil {
		return 0, err
	}
	reader, _, _, err := greeting(conn)
	if err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(pattern(0, size))
		sent <- err
	}()
	back := make([]byte, size)
	n, err := io.ReadFull(reader, back)
	if err := errors.Join(err, <-sent); err != nil {
		return n, err
	}
	if !bytes.Equal(back, pattern(0, size)) {
		return 0, errWrongBytes
	}
	return n, nil
}

// pattern is the content of a stream from an offset on: no two stretches of it
// that lie near each other are the same.
func pattern(offset uint64, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		x := (offset + uint64(i)) * 0x9e3779b97f4a7c15
		b[i] = byte(x >> 56)
	}
	return b
}
