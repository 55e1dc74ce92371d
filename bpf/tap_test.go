package bpf_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/bpf"
)

// vnet is struct virtio_net_hdr: what a virtual machine leaves for the kernel to do.
type vnet struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16
	GSOSize    uint16
	CsumStart  uint16
	CsumOffset uint16
}

const (
	vnetNeedsCsum = 1
	vnetTCPv6     = 4
	vnetSize      = 10
)

// taps numbers the devices of this process.
var taps atomic.Uint32

// tap is a device of which the test is the guest.
type tap struct {
	*member
	t    *testing.T
	file *os.File
	vnet bool
}

// newTap makes a tap the device of a member of the world, with the router attached.
// offload is what its guest takes from the kernel undone, TUN_F_*.
func newTap(t *testing.T, w *world, m *member, withHeader bool, offload int) *tap {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	must(t, err)
	name := fmt.Sprintf("tap%d", taps.Add(1))
	request, err := unix.NewIfreq(name)
	must(t, err)
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if withHeader {
		flags |= unix.IFF_VNET_HDR
	}
	request.SetUint16(flags)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	if withHeader {
		must(t, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload))
	}
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { must(t, file.Close()) })
	device := raise(t, w, name)
	m.ifindex = uint32(device.Attrs().Index)
	m.router = mac(device.Attrs().HardwareAddr)
	w.setPort(bpf.RouterPort{
		Ifindex: m.ifindex, Network: uint32(m.network), Host: uint32(m.host), Machine: uint32(m.machine), Counters: m.counters,
		Mtu: testMTU, Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Mac: m.router,
	})
	w.setTap(m, testMTU)
	return &tap{member: m, t: t, file: file, vnet: withHeader}
}

// setTap writes where a Machine is that has a tap.
func (w *world) setTap(m *member, mtu uint16) {
	w.t.Helper()
	must(w.t, bpf.MachineSlots(w.MachineSlots).Put(bpf.RouterMachine{
		Network: uint32(m.network), Machine: uint32(m.machine), Ifindex: m.ifindex, Counters: m.counters, Mtu: mtu,
		Kind: uint8(bpf.RouterPortKindPORT_MACHINE), Mac: m.guest, RouterMac: m.router,
	}))
}

// raise sets a device up as the loader does: silent, with the router on it.
func raise(t *testing.T, w *world, name string) netlink.Link {
	t.Helper()
	return raiseWith(t, w.SixpnRouter, name)
}

func raiseWith(t *testing.T, program *ebpf.Program, name string) netlink.Link {
	t.Helper()
	must(t, os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0o644))
	device, err := netlink.LinkByName(name)
	must(t, err)
	attached, err := link.AttachTCX(link.TCXOptions{
		Interface: device.Attrs().Index, Program: program, Attach: attachIngress,
	})
	must(t, err)
	t.Cleanup(func() { must(t, attached.Close()) })
	must(t, netlink.LinkSetUp(device))
	return device
}

// send hands a frame over, with a header if the tap has one.
func (g *tap) send(header vnet, frame []byte) {
	g.t.Helper()
	data := slices.Clone(frame)
	if g.vnet {
		raw, err := binary.Append(nil, binary.NativeEndian, header)
		must(g.t, err)
		data = append(raw, frame...)
	}
	if _, err := g.file.Write(data); err != nil {
		g.t.Fatalf("send %d bytes by %s: %v", len(frame), g.name, err)
	}
}

// receive waits for the next frame.
func (g *tap) receive() (header vnet, frame []byte) {
	g.t.Helper()
	must(g.t, g.file.SetReadDeadline(time.Now().Add(5*time.Second)))
	data := make([]byte, 1<<16)
	n, err := g.file.Read(data)
	if err != nil {
		g.t.Fatalf("receive by %s: %v", g.name, err)
	}
	data = data[:n]
	if g.vnet {
		_, err := binary.Decode(data, binary.NativeEndian, &header)
		must(g.t, err)
		data = data[vnetSize:]
	}
	return header, data
}

// half leaves the checksum as a sender with an offload does: the pseudo header's sum.
func half(frame []byte) []byte {
	frame = slices.Clone(frame)
	field := offsetL4 + checksumOffset(frame[offsetNext])
	binary.BigEndian.PutUint16(frame[field:], foldSum(pseudoSum(frame, frame[offsetNext], len(frame)-offsetL4)))
	return frame
}

// needsChecksum is the header that goes with half.
func needsChecksum(frame []byte) vnet {
	return vnet{Flags: vnetNeedsCsum, CsumStart: offsetL4, CsumOffset: uint16(checksumOffset(frame[offsetNext]))}
}

// complete does what a header asks for.
func complete(header vnet, frame []byte) []byte {
	if header.Flags&vnetNeedsCsum == 0 {
		return frame
	}
	frame = slices.Clone(frame)
	sum := ^foldSum(sumWords(frame[header.CsumStart:]))
	binary.BigEndian.PutUint16(frame[header.CsumStart+header.CsumOffset:], sum)
	return frame
}
