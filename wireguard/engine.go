package wireguard

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/sixpn/sixpn/internal/inherited"
)

// engine is the process that stands in for the kernel's WireGuard.
type engine struct {
	device *device.Device
	uapi   net.Listener
}

// runEngine does an engine's whole work. It ends when its device or its socket is
// removed, and by SIGTERM, which a host that goes down sends.
func runEngine(spec engineSpec) error {
	// It has the host's private key, which is not for a core dump.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return os.NewSyscallError("setrlimit RLIMIT_CORE", err)
	}
	// Ctrl-C and log-outs concern the agent's session.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	if err := inherited.Close(readyFD); err != nil {
		return err
	}
	log := &engineLog{path: spec.Log, size: logSize}
	e, err := startEngine(spec, log)
	report := os.NewFile(readyFD, "ready")
	said := ready
	if err != nil {
		said = err.Error()
	}
	_, _ = report.WriteString(said) // whoever asked may be gone
	report.Close()
	if err != nil {
		return err
	}
	log.printf("%s: at work on UDP port %d", spec.Device, spec.Port)
	lost := make(chan error, 1)
	go func() { lost <- e.serve() }()
	select {
	case <-terminated:
		log.printf("%s: ends, it was told to", spec.Device)
	case <-e.device.Wait():
		log.printf("%s: ends, its device is gone", spec.Device)
	case err := <-lost:
		log.printf("%s: ends, its socket is gone: %v", spec.Device, err)
	}
	e.uapi.Close()
	e.device.Close()
	return nil
}

// startEngine takes up the TUN device, or makes it, and binds the port. Whatever
// fails leaves no device that was not there before.
func startEngine(spec engineSpec, log *engineLog) (*engine, error) {
	made, err := tun.CreateTUN(spec.Device, int(spec.MTU))
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("device %s is in the hands of another process: end that (\"ip -d link show %s\" and \"fuser /dev/net/tun\" show it)", spec.Device, spec.Device)
	}
	if err != nil {
		return nil, fmt.Errorf("open the TUN device %s (root and /dev/net/tun are needed): %w", spec.Device, err)
	}
	link := &steadyTUN{Device: made, events: make(chan tun.Event)}
	go link.forward()
	d := device.NewDevice(link, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: log.printf})
	uapi, err := openEngine(spec, made, d)
	if err != nil {
		d.Close()
		return nil, err
	}
	return &engine{device: d, uapi: uapi}, nil
}

func openEngine(spec engineSpec, made tun.Device, d *device.Device) (net.Listener, error) {
	if err := d.IpcSet(fmt.Sprintf("listen_port=%d\n", spec.Port)); err != nil {
		return nil, err
	}
	if err := d.Up(); errors.Is(err, unix.EADDRINUSE) {
		return nil, portInUse(spec.Port)
	} else if err != nil {
		return nil, fmt.Errorf("listen on UDP port %d: %w", spec.Port, err)
	}
	if err := keepDevice(made, spec); err != nil {
		return nil, err
	}
	socket, err := ipc.UAPIOpen(spec.Device) // removes one that nobody listens on
	if err != nil {
		return nil, fmt.Errorf("make the socket %s: %w", socketPath(spec.Device), err)
	}
	defer socket.Close()
	return ipc.UAPIListen(spec.Device, socket)
}

// keepDevice makes the device outlive this process. First it gets the alias: a
// process that ends in between leaves nothing that nobody knows.
func keepDevice(made tun.Device, spec engineSpec) error {
	link, err := netlink.LinkByName(spec.Device)
	if err != nil {
		return fmt.Errorf("find device %s: %w", spec.Device, err)
	}
	if err := netlink.LinkSetAlias(link, spec.Alias); err != nil {
		return fmt.Errorf("set the alias of %s: %w", spec.Device, err)
	}
	raw, err := made.File().SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	if err := raw.Control(func(fd uintptr) { setErr = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) }); err != nil {
		return err
	}
	if setErr != nil {
		return fmt.Errorf("make %s persistent: %w", spec.Device, setErr)
	}
	return nil
}

// serve answers wgctrl until the socket is removed.
func (e *engine) serve() error {
	for {
		c, err := e.uapi.Accept()
		if err != nil {
			return err
		}
		go e.device.IpcHandle(c)
	}
}

// steadyTUN keeps from wireguard-go that the link goes up or down. Else it would
// bind its port only when the link is raised, and one that is taken by then would
// be noticed by nobody, or replaced by a random one. A link that is down takes no
// packet from an engine anyway.
type steadyTUN struct {
	tun.Device
	events chan tun.Event
}

// Read repairs what wireguard-go makes of the checksums that the kernel left to it: it
// may write zero into a UDP header, which in IPv6 means that there is none and has the
// receiver drop the datagram (RFC 8200, 8.1); the kernel would write 0xffff.
func (t *steadyTUN) Read(packets [][]byte, sizes []int, offset int) (int, error) {
	n, err := t.Device.Read(packets, sizes, offset)
	for i := range n {
		repairChecksum(packets[i][offset : offset+sizes[i]])
	}
	return n, err
}

// repairChecksum looks at UDP without extension headers, which is all that the kernel
// leaves a checksum of to others.
func repairChecksum(packet []byte) {
	const nextHeader, checksum = 6, 40 + 6
	if len(packet) >= checksum+2 && packet[0]>>4 == 6 && packet[nextHeader] == unix.IPPROTO_UDP &&
		packet[checksum] == 0 && packet[checksum+1] == 0 {
		packet[checksum], packet[checksum+1] = 0xff, 0xff
	}
}

func (t *steadyTUN) Events() <-chan tun.Event { return t.events }

func (t *steadyTUN) forward() {
	defer close(t.events)
	for e := range t.Device.Events() {
		if e&tun.EventMTUUpdate != 0 {
			t.events <- tun.EventMTUUpdate
		}
	}
}
