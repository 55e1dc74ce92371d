package nettest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Frame is one that a host sent onto an underlay.
type Frame struct {
	At   time.Time
	Data []byte // from the Ethernet header on
}

// Capture is all that hosts send onto an underlay, cut or not, while it runs.
type Capture struct {
	underlay *Underlay
	socket   *os.File
	ended    sync.WaitGroup

	mu     sync.Mutex
	frames []Frame
}

// Capture begins to listen. It is to be closed.
func (u *Underlay) Capture() (*Capture, error) {
	c := &Capture{underlay: u}
	err := u.namespace.Do(func() (err error) {
		c.socket, err = packetSocket("")
		return err
	})
	if err != nil {
		return nil, err
	}
	c.ended.Go(c.read)
	return c, nil
}

// read takes frames until its deadline has come.
func (c *Capture) read() {
	raw, err := c.socket.SyscallConn()
	for err == nil {
		err = raw.Read(func(fd uintptr) bool { return c.take(int(fd)) })
	}
}

// take keeps a frame if one is there. The bridge, at which multicast arrives too, and
// the devices of a delay have the frame of a port again.
func (c *Capture) take(fd int) (taken bool) {
	buffer := make([]byte, 64<<10)
	n, from, err := unix.Recvfrom(fd, buffer, 0)
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	// Any other error tells of a device that went.
	if address, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && c.underlay.isPort(address.Ifindex) {
		c.mu.Lock()
		c.frames = append(c.frames, Frame{time.Now(), slices.Clone(buffer[:n])})
		c.mu.Unlock()
	}
	return true
}

// Frames are those that were seen so far.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// Close ends the capture; all frames that came before it stay. The error says if some
// are missing.
func (c *Capture) Close() error {
	raw, err := c.socket.SyscallConn()
	if err := errors.Join(err, c.socket.SetReadDeadline(time.Unix(1, 0))); err != nil {
		return err
	}
	c.ended.Wait()
	var seen *unix.TpacketStats
	controlErr := raw.Control(func(fd uintptr) {
		for c.take(int(fd)) {
		}
		seen, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err := errors.Join(controlErr, err, c.socket.Close()); err != nil {
		return fmt.Errorf("end a capture: %w", err)
	}
	if seen.Drops > 0 {
		return fmt.Errorf("a capture missed %d frames of %d", seen.Drops, seen.Packets)
	}
	return nil
}

// WritePcap writes frames as a file of libpcap's classic format.
func WritePcap(to io.Writer, frames []Frame) error {
	const snapshot, ethernet = 1 << 16, 1
	out := bufio.NewWriter(to)
	header := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	header = binary.LittleEndian.AppendUint16(header, 2)
	header = binary.LittleEndian.AppendUint16(header, 4)
	for _, v := range []uint32{0, 0, snapshot, ethernet} {
		header = binary.LittleEndian.AppendUint32(header, v)
	}
	_, _ = out.Write(header) // Flush has the error
	for _, f := range frames {
		record := make([]byte, 0, 16)
		for _, v := range []int{int(f.At.Unix()), f.At.Nanosecond() / 1000, len(f.Data), len(f.Data)} {
			record = binary.LittleEndian.AppendUint32(record, uint32(v))
		}
		_, _ = out.Write(record)
		_, _ = out.Write(f.Data)
	}
	return out.Flush()
}
