package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/bpf"
	"github.com/sixpn/sixpn/netns"
)

// A world is a host with one port, a guest behind it, and a sink: the test's
// router sends whatever the guest sent to the sink.
//
//	guest eth0 — port0 host out0 — eth0 sink
type world struct {
	t                 *testing.T
	host, guest, sink *netns.Namespace
	port              uint32 // ifindex of port0
	out               uint32 // ifindex of out0
	config            Config // of build 1
}

const (
	sinkPort   = 4000
	patience   = 30 * time.Second
	testTables = 1024 // elements: the real tables take long to make
	xdpPass    = 2    // XDP_PASS, linux/bpf.h
	tcxNext    = -1   // TCX_NEXT, linux/bpf.h
)

var (
	guest6, sink6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	guest4, host4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	host6         = netip.MustParseAddr("fd00::3")
)

func newWorld(t *testing.T) *world {
	t.Helper()
	unique := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
	dir := filepath.Join("/run", "sixpn-loader-"+unique, "netns")
	w := &world{t: t}
	for name, n := range map[string]**netns.Namespace{"host": &w.host, "guest": &w.guest, "sink": &w.sink} {
		made, err := netns.Create(filepath.Join(dir, name))
		w.must(err)
		*n = made
	}
	w.config = Config{Name: "test-" + unique, Namespace: w.host, load: w.build(1, nil), loadXDP: w.buildXDP(1)}
	w.must(w.config.complete())
	t.Cleanup(func() {
		_, err := Reset(t.Context(), w.config)
		if err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		_ = os.RemoveAll(w.config.PinRoot)
		for _, n := range []*netns.Namespace{w.host, w.guest, w.sink} {
			_ = n.Close()
			w.must(netns.Delete(n.Path()))
		}
		w.must(unix.Unmount(dir, unix.MNT_DETACH))
		w.must(os.RemoveAll(filepath.Dir(dir)))
	})
	w.port = w.veth("port0", w.guest, guest6)
	w.out = w.veth("out0", w.sink, sink6)
	w.must(w.host.Do(func() error { return onDevice("out0", netlink.LinkSetUp) }))
	sinkMAC := w.mac(w.sink)
	w.must(w.guest.Do(func() error {
		return onDevice("eth0", func(eth0 netlink.Link) error {
			return neighbour(eth0, sink6, sinkMAC)
		})
	}))
	w.waitFor(w.sink, "the sink's address is local", func() (bool, error) {
		routes, err := netlink.RouteGet(sink6.AsSlice())
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL, nil
	})
	return w
}

// build gives a collection whose router passes everything to the sink. Builds of
// two numbers differ in one instruction; change may change more.
func (w *world) build(number int32, change func(*ebpf.CollectionSpec)) func() (*ebpf.CollectionSpec, error) {
	return func() (*ebpf.CollectionSpec, error) {
		spec, err := bpf.LoadRouter()
		if err != nil {
			return nil, err
		}
		for name, m := range spec.Maps {
			if isData(name) || m.Type == ebpf.RingBuf || m.MaxEntries < testTables {
				continue
			}
			m.MaxEntries = testTables
		}
		for _, name := range onTCX {
			spec.Programs[name].Instructions = asm.Instructions{
				asm.Mov.Imm(asm.R6, number),
				asm.Mov.Imm(asm.R1, int32(w.out)),
				asm.Mov.Imm(asm.R2, 0),
				asm.FnRedirect.Call(),
				asm.Return(),
			}
		}
		// All that these tests send over an uplink is the host's own.
		spec.Programs[uplinkName].Instructions = asm.Instructions{
			asm.Mov.Imm(asm.R6, number), asm.Mov.Imm(asm.R0, tcxNext), asm.Return(),
		}
		spec.Programs[expireName].Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
		if change != nil {
			change(spec)
		}
		return spec, nil
	}
}

// buildXDP gives XDP programs that pass everything, likewise by number.
func (w *world) buildXDP(number int32) func() (*ebpf.CollectionSpec, error) {
	return func() (*ebpf.CollectionSpec, error) {
		spec, err := bpf.LoadUplink()
		if err != nil {
			return nil, err
		}
		for _, name := range onXDP {
			spec.Programs[name].Instructions = asm.Instructions{
				asm.Mov.Imm(asm.R6, number), asm.Mov.Imm(asm.R0, xdpPass), asm.Return(),
			}
		}
		return spec, nil
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// veth makes a pair: a device on the host, down, and eth0 with an address in n.
func (w *world) veth(name string, n *netns.Namespace, address netip.Addr) uint32 {
	w.t.Helper()
	var ifindex uint32
	w.must(w.host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(n.File().Fd())}); err != nil {
			return err
		}
		return onDevice(name, func(x netlink.Link) error { ifindex = uint32(x.Attrs().Index); return nil })
	}))
	w.must(n.Do(func() error {
		return onDevice("eth0", func(x netlink.Link) error {
			return errors.Join(netlink.LinkSetUp(x), addAddress(x, address))
		})
	}))
	return ifindex
}

func addAddress(device netlink.Link, address netip.Addr) error {
	bits := 64
	if address.Is4() {
		bits = 24
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(bits, address.BitLen())}}
	if address.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return netlink.AddrReplace(device, a)
}

func neighbour(device netlink.Link, address netip.Addr, mac net.HardwareAddr) error {
	family := netlink.FAMILY_V6
	if address.Is4() {
		family = netlink.FAMILY_V4
	}
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: device.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac,
	})
}

func onDevice(name string, do func(netlink.Link) error) error {
	x, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return do(x)
}

func (w *world) mac(n *netns.Namespace) (mac net.HardwareAddr) {
	w.t.Helper()
	w.must(n.Do(func() error {
		return onDevice("eth0", func(x netlink.Link) error { mac = x.Attrs().HardwareAddr; return nil })
	}))
	return mac
}

// waitFor polls a condition inside a namespace until it holds.
func (w *world) waitFor(n *netns.Namespace, what string, holds func() (bool, error)) {
	w.t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	deadline := time.After(patience)
	for {
		var ok bool
		w.must(n.Do(func() (err error) { ok, err = holds(); return err }))
		if ok {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			w.t.Fatalf("waited %s until %s", patience, what)
		}
	}
}

func (w *world) transmits(n *netns.Namespace, name string) {
	w.t.Helper()
	w.waitFor(n, name+" transmits", func() (up bool, err error) {
		err = onDevice(name, func(x netlink.Link) error { up = x.Attrs().OperState == netlink.OperUp; return nil })
		return up, err
	})
}

// open opens the loader, and closes it with the test if that has not been done.
func (w *world) open(config Config) *Loader {
	w.t.Helper()
	l, err := Open(w.t.Context(), config)
	w.must(err)
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

// bring is what the agent does with a port.
func bring(l *Loader, port uint32) error {
	for _, step := range []func(uint32) error{l.Prepare, l.Attach, l.Raise} {
		if err := step(port); err != nil {
			return err
		}
	}
	return nil
}

// passes sends one datagram from the guest and has it arrive at the sink.
func (w *world) passes() {
	w.t.Helper()
	w.transmits(w.host, "port0")
	w.transmits(w.guest, "eth0")
	receiver, sender := w.sockets()
	defer receiver.Close()
	defer sender.Close()
	if _, err := sender.Write([]byte("one")); err != nil {
		w.t.Fatal(err)
	}
	b := make([]byte, 100)
	_ = receiver.SetReadDeadline(time.Now().Add(patience))
	if n, _, err := receiver.ReadFrom(b); err != nil || string(b[:n]) != "one" {
		w.t.Fatalf("the sink got %q, %v; expected a datagram through the router", b[:n], err)
	}
}

func (w *world) sockets() (receiver net.PacketConn, sender net.Conn) {
	w.t.Helper()
	to := netip.AddrPortFrom(sink6, sinkPort).String()
	receiver, err := w.sink.ListenPacket(w.t.Context(), "udp6", to)
	w.must(err)
	raw, err := receiver.(syscall.Conn).SyscallConn()
	w.must(err)
	w.must(raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	}))
	w.must(err)
	sender, err = w.guest.Dial(w.t.Context(), "udp6", &net.UDPAddr{IP: guest6.AsSlice()}, to)
	w.must(err)
	return receiver, sender
}

// programs are the tcx programs on the port.
func (w *world) programs() (ids []ebpf.ProgramID) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		attached, err := attachedTo(w.port)
		for _, program := range attached {
			ids = append(ids, program.ID)
		}
		return err
	}))
	return ids
}

// state is what a device is like now.
type state struct{ up, filtered, routed bool }

func (w *world) state() (s state) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		return onDevice("port0", func(x netlink.Link) error {
			filter, agent, err := filterOf(x)
			s.up = x.Attrs().Flags&net.FlagUp != 0
			s.filtered = filter != nil && agent == w.config.Name
			return err
		})
	}))
	s.routed = len(w.programs()) > 0
	return s
}

// tree lists the pins, in order.
func (w *world) tree() (pins []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.config.PinRoot, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			relative, _ := filepath.Rel(w.config.PinRoot, path)
			pins = append(pins, relative)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return pins
}

// veth2 makes a second port, without anybody behind it.
func (w *world) veth2(name string) (ifindex uint32) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer"}); err != nil {
			return err
		}
		return onDevice(name, func(x netlink.Link) error { ifindex = uint32(x.Attrs().Index); return nil })
	}))
	return ifindex
}
