package loader

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// hostPort is where the host listens for what comes over the uplink.
const hostPort = 4001

// uplink makes the device to the sink the host's uplink: it has an address.
func (w *world) uplink() uint32 {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		return onDevice("out0", func(x netlink.Link) error { return addAddress(x, host6) })
	}))
	w.transmits(w.host, "out0")
	w.transmits(w.sink, "eth0")
	return w.out
}

// attachedXDP is the name of the XDP program on a device, and in which mode it is there.
func (w *world) attachedXDP(name string) (program string, mode uint32) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		return onDevice(name, func(x netlink.Link) error {
			xdp := x.Attrs().Xdp
			if xdp == nil || !xdp.Attached {
				return nil
			}
			loaded, err := ebpf.NewProgramFromID(ebpf.ProgramID(xdp.ProgId))
			if err != nil {
				return err
			}
			defer loaded.Close()
			program, err = nameOf(loaded)
			mode = xdp.AttachMode
			return err
		})
	}))
	return program, mode
}

// looksLike says how the kernel is seen to run XDP on a device.
func (w *world) looksLike(ifindex uint32, want XDP) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		seen, err := Look(ifindex)
		same(w.t, "XDP as it is seen", seen.XDP, want)
		return err
	}))
}

// takeOff removes the XDP program of a device, as somebody with its link can.
func (w *world) takeOff(ifindex uint32, program ebpf.ProgramID) {
	w.t.Helper()
	x, err := xdpLink(ifindex, program)
	w.must(err)
	w.must(x.(interface{ Detach() error }).Detach())
	w.must(x.Close())
}

// hears has the sink send a datagram to the host, which gets it.
func (w *world) hears() {
	w.t.Helper()
	to := netip.AddrPortFrom(host6, hostPort)
	receiver, err := w.host.ListenPacket(w.t.Context(), "udp6", to.String())
	w.must(err)
	defer receiver.Close()
	sender, err := w.sink.Dial(w.t.Context(), "udp6", nil, to.String())
	w.must(err)
	defer sender.Close()
	_, err = sender.Write([]byte("one"))
	w.must(err)
	b := make([]byte, 10)
	_ = receiver.SetReadDeadline(time.Now().Add(patience))
	if n, _, err := receiver.ReadFrom(b); err != nil || string(b[:n]) != "one" {
		w.t.Fatalf("the host got %q, %v; expected a datagram over its uplink", b[:n], err)
	}
}

// requireOpen says that a device is up, has its address and no filter of ours.
func (w *world) requireOpen(name string) {
	w.t.Helper()
	w.must(w.host.Do(func() error {
		return onDevice(name, func(x netlink.Link) error {
			filter, _, err := filterOf(x)
			addresses, _ := netlink.AddrList(x, netlink.FAMILY_V6)
			if filter != nil || x.Attrs().Flags&net.FlagUp == 0 || len(addresses) == 0 {
				w.t.Errorf("the uplink has filter %v, flags %v, addresses %v: expected none, up, its own", filter, x.Attrs().Flags, addresses)
			}
			return err
		})
	}))
}

// The uplink keeps its traffic and its two programs before and after a restart, a repair,
// an upgrade and a loss of pins, and loses only them at the end.
func TestUplink(t *testing.T) {
	w := newWorld(t)
	up := w.uplink()
	first := w.open(w.config)
	w.must(bring(first, w.port))
	carries := func(l *Loader) {
		t.Helper()
		info, err := l.Uplink().Info()
		w.must(err)
		id, _ := info.ID()
		same(t, "tcx programs", w.programsOf(up), []ebpf.ProgramID{id})
		same(t, "uplinks", l.Uplinks(), []uint32{up})
		if name, mode := w.attachedXDP("out0"); name != driverName || mode != 1 {
			t.Errorf("the device carries XDP program %q in mode %d, expected %q in its driver (1)", name, mode, driverName)
		}
		w.looksLike(up, XDPDriver)
		w.requireOpen("out0")
		w.hears()
	}
	attach := func(l *Loader) {
		t.Helper()
		xdp, err := l.AttachUplink(up)
		w.must(err)
		same(t, "mode", xdp, XDPDriver)
		carries(l)
	}
	attach(first)
	pins := w.tree()
	attach(first)
	w.must(first.Repair())
	same(t, "pins", w.tree(), pins)
	carries(first)

	// Somebody takes XDP off: it is seen, and comes back.
	program, err := first.programs[driverName].Info()
	w.must(err)
	id, _ := program.ID()
	w.takeOff(up, id)
	w.looksLike(up, XDPNone)
	attach(first)
	same(t, "pins", w.tree(), pins)
	w.must(first.Close())
	carriesAlone, _ := w.attachedXDP("out0")
	same(t, "program without an agent", carriesAlone, driverName)

	again := w.open(w.config)
	same(t, "replaced by the same build", again.Opened().Replaced, false)
	carries(again)
	attach(again)

	// Somebody removes every pin while an agent runs: the next one finds what is there.
	w.must(os.RemoveAll(filepath.Join(w.config.PinRoot, xdpDir)))
	w.must(os.RemoveAll(filepath.Join(w.config.PinRoot, linksDir)))
	unpinned := w.open(w.config)
	w.must(bring(unpinned, w.port))
	attach(unpinned)
	same(t, "pins written again", w.tree(), pins)
	w.must(again.Close())

	w.must(unpinned.Detach(up))
	same(t, "tcx programs", len(w.programsOf(up)), 0)
	if name, _ := w.attachedXDP("out0"); name != "" {
		t.Errorf("the device still carries XDP program %q", name)
	}
	same(t, "uplinks", len(unpinned.Uplinks()), 0)
	w.requireOpen("out0")
	w.hears()

	attach(unpinned)
	w.must(unpinned.Close())
	_, err = Reset(t.Context(), w.config)
	w.must(err)
	same(t, "tcx programs after a reset", len(w.programsOf(up)), 0)
	if name, _ := w.attachedXDP("out0"); name != "" {
		t.Errorf("the device carries XDP program %q after a reset", name)
	}
	w.requireOpen("out0")
}

// Another build takes the place of both programs without losing a frame.
func TestUplinkUpgradeLosesNothing(t *testing.T) {
	w := newWorld(t)
	up := w.uplink()
	l := w.open(w.config)
	_, err := l.AttachUplink(up)
	w.must(err)
	to := netip.AddrPortFrom(host6, hostPort)
	receiver, err := w.host.ListenPacket(t.Context(), "udp6", to.String())
	w.must(err)
	defer receiver.Close()
	sender, err := w.sink.Dial(t.Context(), "udp6", nil, to.String())
	w.must(err)
	defer sender.Close()
	b := make([]byte, 10)
	exchange := func() error { // one at a time: no queue can overflow
		if _, err := sender.Write([]byte("one")); err != nil {
			return err
		}
		_ = receiver.SetReadDeadline(time.Now().Add(patience))
		_, _, err := receiver.ReadFrom(b)
		return err
	}
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		sent := 0
		defer func() { stopped <- sent }()
		for {
			select {
			case <-stop:
				return
			default:
				if err := exchange(); err != nil {
					t.Errorf("a datagram was lost: %v", err)
					return
				}
				sent++
			}
		}
	}()
	for build := range int32(5) {
		w.must(l.Close())
		config := w.config
		config.load, config.loadXDP = w.build(build+2, nil), w.buildXDP(build+2)
		l = w.open(config)
		same(t, "replaced", l.Opened().Replaced, true)
		same(t, "uplinks", l.Uplinks(), []uint32{up})
		for _, name := range []string{driverName, genericName} {
			if l.programs[name] == nil {
				t.Fatalf("the loader has no program %s", name)
			}
		}
		w.must(w.host.Do(func() error {
			return onDevice("out0", func(x netlink.Link) error {
				info, err := l.programs[driverName].Info()
				id, _ := info.ID()
				same(t, "XDP program", ebpf.ProgramID(x.Attrs().Xdp.ProgId), id)
				return err
			})
		}))
	}
	close(stop)
	if sent := <-stopped; sent == 0 {
		t.Error("no datagram was sent meanwhile")
	}
}

// A driver without XDP gets the generic program.
func TestUplinkFallsBackToGeneric(t *testing.T) {
	w := newWorld(t)
	var ifindex uint32
	w.must(w.host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "nic0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		return onDevice("nic0", func(x netlink.Link) error { ifindex = uint32(x.Attrs().Index); return netlink.LinkSetUp(x) })
	}))
	l := w.open(w.config)
	xdp, err := l.AttachUplink(ifindex)
	w.must(err)
	same(t, "mode", xdp, XDPGeneric)
	w.must(l.Close())
	l = w.open(w.config)
	xdp, err = l.AttachUplink(ifindex)
	w.must(err)
	same(t, "mode after a restart", xdp, XDPGeneric)
	w.looksLike(ifindex, XDPGeneric)
	if name, mode := w.attachedXDP("nic0"); name != genericName || mode != 2 {
		t.Errorf("the device carries XDP program %q in mode %d, expected %q in generic mode (2)", name, mode, genericName)
	}
}

// What is not ours stays, and a device is a port or the uplink.
func TestUplinkIsRefused(t *testing.T) {
	w := newWorld(t)
	up := w.uplink()
	l := w.open(w.config)
	stranger, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	w.must(err)
	defer stranger.Close()
	var other link.Link
	w.must(w.host.Do(func() (err error) {
		other, err = link.AttachXDP(link.XDPOptions{Program: stranger, Interface: int(up)})
		return err
	}))
	if _, err := l.AttachUplink(up); !errors.Is(err, ErrForeign) {
		t.Errorf("with another XDP program: %v, expected ErrForeign", err)
	}
	same(t, "tcx programs", len(w.programsOf(up)), 0)
	w.looksLike(up, XDPNone) // of ours
	w.must(l.Detach(up))
	_, err = Reset(t.Context(), w.config)
	w.must(err)
	if _, mode := w.attachedXDP("out0"); mode == 0 {
		t.Error("the stranger's program is gone")
	}
	w.must(other.Close())

	l = w.open(w.config)
	w.must(bring(l, w.port))
	if _, err := l.AttachUplink(w.port); err == nil {
		t.Error("a port became the uplink: its drop filter would stop the host's traffic")
	}
	w.passes()
	_, err = l.AttachUplink(up)
	w.must(err)
	if err := l.Prepare(up); err == nil {
		t.Error("the uplink was prepared as a port, which closes it")
	}
	w.requireOpen("out0")
}

// A veth takes frames of XDP while its other end has a queue for them.
func TestTakesXDP(t *testing.T) {
	w := newWorld(t)
	l := w.open(w.config)
	takes := func(ifindex uint32, want bool) {
		t.Helper()
		got, err := l.TakesXDP(ifindex)
		w.must(err)
		same(t, "takes frames of XDP", got, want)
	}
	takes(w.port, false)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	w.must(err)
	defer program.Close()
	var inside link.Link
	w.must(w.guest.Do(func() error {
		return onDevice("eth0", func(x netlink.Link) (err error) {
			inside, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: x.Attrs().Index, Flags: link.XDPDriverMode})
			return err
		})
	}))
	takes(w.port, true)
	w.must(inside.Close())
	takes(w.port, false)
	if _, err := l.TakesXDP(1 << 30); err == nil {
		t.Error("a device that does not exist takes frames of XDP, or not: expected an error")
	}
}
