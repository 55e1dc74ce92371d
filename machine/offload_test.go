package machine_test

import (
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/netns"
)

// takesFrames reads whether a device takes frames of XDP (linux/netdev.h).
func takesFrames(t *testing.T, ifindex uint32) bool {
	t.Helper()
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		t.Fatal(err)
	}
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	request.AddRawData(append([]byte{1, 1, 0, 0}, nl.NewRtAttr(1, nl.Uint32Attr(ifindex)).Serialize()...))
	replies, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		t.Fatal(err)
	}
	attributes, err := nl.ParseRouteAttr(replies[0][nl.SizeofGenlmsg:])
	if err != nil {
		t.Fatal(err)
	}
	for _, attribute := range attributes {
		if attribute.Attr.Type == 3 {
			return attribute.Value[0]&4 != 0
		}
	}
	t.Fatal("the kernel says nothing of XDP")
	return false
}

// A device is made ready for frames of XDP, on both of its sides, only where that is wanted.
func TestVethTakesFramesOfXDP(t *testing.T) {
	namespace, err := netns.Create(filepath.Join("/run", "sixpn-machine-"+itoa(unix.Getpid()), "netns", "xdp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(namespace.Path()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = namespace.Close() })
	for _, xdp := range []bool{false, true} {
		device, err := machine.CreateVeth(await.Context(t), namespace.File(), machine.VethConfig{
			ID: "0123456789abcd", Alias: machine.AliasOf("test", "0123456789abcd"), XDP: xdp,
		})
		if err != nil {
			t.Fatal(err)
		}
		link, err := netlink.LinkByIndex(int(device.Ifindex))
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil { // then it says so
			t.Fatal(err)
		}
		if got := takesFrames(t, device.Ifindex); got != xdp {
			t.Errorf("the device takes frames of XDP: %t, expected %t", got, xdp)
		}
		if err := machine.DeleteVeth("0123456789abcd"); err != nil {
			t.Fatal(err)
		}
	}
}
