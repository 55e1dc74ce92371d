package bpf_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/netns"
)

// switchOn switches a feature on that has no request of its own.
func switchOn(device, feature string) error {
	const getStrings, getCounts, setFeatures, features, length = 0x1b, 0x37, 0x3b, 4, 32
	counts := []uint32{getCounts, 0, 1 << features, 0, 0}
	if err := netns.Ethtool(device, counts); err != nil {
		return err
	}
	count := int(counts[4])
	words := make([]uint32, 3+count*length/4)
	words[0], words[1], words[2] = getStrings, features, uint32(count)
	if err := netns.Ethtool(device, words); err != nil {
		return err
	}
	names := unsafe.Slice((*byte)(unsafe.Pointer(&words[3])), count*length)
	for i := range count {
		name, _, _ := bytes.Cut(names[i*length:(i+1)*length], []byte{0})
		if string(name) != feature {
			continue
		}
		blocks := (count + 31) / 32
		words := make([]uint32, 2+2*blocks)
		words[0], words[1] = setFeatures, uint32(blocks)
		words[2+i/32*2], words[3+i/32*2] = 1<<(i%32), 1<<(i%32)
		return netns.Ethtool(device, words)
	}
	return fmt.Errorf("%s has no feature %q", device, feature)
}

// collect has a device wait for more packets before it hands on what it received.
func collect(device string) error {
	// The files are those of the namespace that mounts them.
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	for file, value := range map[string]string{"gro_flush_timeout": "20000000", "napi_defer_hard_irqs": "10"} {
		if err := os.WriteFile("/sys/class/net/"+device+"/"+file, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// forwardLists makes the guest a router for what is sent into the device `outer`, which
// it receives by `inner` and puts into lists.
func (g *guest) forwardLists() (outer, inner netlink.Link) {
	g.t.Helper()
	inside, err := netlink.NewHandleAt(g.namespace)
	must(g.t, err)
	defer inside.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "outer"
	must(g.t, inside.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "inner"}))
	g.do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644); err != nil {
			return err
		}
		if err := netns.SetFeature("inner", netns.GRO, true); err != nil {
			return err
		}
		return switchOn("inner", "rx-gro-list")
	})
	for name, link := range map[string]*netlink.Link{"outer": &outer, "inner": &inner} {
		*link, err = inside.LinkByName(name)
		must(g.t, err)
		must(g.t, inside.LinkSetUp(*link))
	}
	way, err := inside.LinkByName("eth0")
	must(g.t, err)
	// It would ask for the gateway only once its own link-local address is settled.
	must(g.t, inside.NeighSet(&netlink.Neigh{
		LinkIndex: way.Attrs().Index, IP: sixpn.Gateway.AsSlice(), HardwareAddr: g.router[:], State: netlink.NUD_PERMANENT,
	}))
	g.do(func() error { return collect("inner") })
	return outer, inner
}

// A list of packets, of which the router would see the first only, is refused.
func TestPacketList(t *testing.T) {
	const datagrams = 6
	w := newWorld(t)
	client := newGuest(t, w, w.client)
	newGuest(t, w, w.server)
	outer, inner := client.forwardLists()
	var socket int
	client.do(func() (err error) {
		socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	t.Cleanup(func() { must(t, unix.Close(socket)) })
	// Of an address that the client may use and does not have itself.
	frame := fromAs(w.client, w.client.low(otherLow), w.server.addr(), protocolUDP, udp(1, 2, pattern(1000)...)).frame
	copy(frame, inner.Attrs().HardwareAddr)
	await.True(t, "a list is refused", func() bool {
		// All within one tick of the kernel, or it is no list; hence again.
		for range datagrams {
			must(t, unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: outer.Attrs().Index}))
		}
		return w.counts().Drops["checksum_offload"] > 0
	})
}
