package nettest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// delay stands between a link's port and the bridge: this process carries frames from
// the one to the other, later. Kernels of small hosts have no netem.
type delay struct {
	near, far string // devices of the pair; far is in the bridge
	sockets   [2]*os.File
	ended     sync.WaitGroup
}

// delayBacklog is how many frames may be under way each way; more are lost.
const delayBacklog = 1 << 14

// beginDelay takes the link's port out of the bridge and puts a pair in its place.
func (l *Link) beginDelay(each time.Duration) error {
	d := &delay{near: "near-" + l.port, far: "far-" + l.port}
	l.slow = d
	return l.underlay.namespace.Do(func() (err error) {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: d.near, MTU: l.underlay.mtu}, PeerName: d.far}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make a pair for a delay: %w", err)
		}
		port, err := netlink.LinkByName(l.port)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetNoMaster(port), enslave(d.far), raise(d.near), raise(d.far), forwards(d.far)); err != nil {
			return err
		}
		l.bridged = d.far
		for i, device := range []string{l.port, d.near} {
			if d.sockets[i], err = packetSocket(device); err != nil {
				return err
			}
		}
		d.ended.Go(func() { carry(d.sockets[0], d.sockets[1], each) })
		d.ended.Go(func() { carry(d.sockets[1], d.sockets[0], each) })
		return nil
	})
}

// endDelay puts the link's port back into the bridge.
func (l *Link) endDelay() error {
	d := l.slow
	if d == nil {
		return nil
	}
	l.slow, l.bridged = nil, l.port
	for _, socket := range d.sockets {
		if socket != nil {
			socket.Close()
		}
	}
	d.ended.Wait()
	return l.underlay.namespace.Do(func() error { return errors.Join(remove(d.near), enslave(l.port)) })
}

// carry moves frames from one device to another until either is closed.
func carry(from, to *os.File, late time.Duration) {
	type held struct {
		frame []byte
		due   time.Time
	}
	queue := make(chan held, delayBacklog)
	var sending sync.WaitGroup
	sending.Go(func() {
		for h := range queue {
			<-time.After(time.Until(h.due))
			// One that does not fit, or comes while the device goes, is a frame lost.
			_, _ = to.Write(h.frame)
		}
	})
	for buffer := make([]byte, 64<<10); ; {
		n, err := from.Read(buffer)
		if err != nil && !errors.Is(err, unix.ENETDOWN) {
			break
		}
		select {
		case queue <- held{append([]byte(nil), buffer[:n]...), time.Now().Add(late)}:
		default:
		}
	}
	close(queue)
	sending.Wait()
}

// packetSocket gets every frame that arrives at a device of the thread's namespace, or
// at any of its devices if that is "", and none that leaves. What is written leaves.
func packetSocket(device string) (*os.File, error) {
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	address := &unix.SockaddrLinklayer{Protocol: all}
	if device != "" {
		d, err := net.InterfaceByName(device)
		if err != nil {
			return nil, err
		}
		address.Ifindex = d.Index
	}
	// Without a protocol nothing is queued before it is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_PACKET", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, address),
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to frames of device %q: %w", device, err)
	}
	return os.NewFile(uintptr(fd), "packets of "+device), nil
}
