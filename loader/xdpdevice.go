package loader

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// From linux/netdev.h.
const (
	netdevFamily      = "netdev"
	netdevGet         = 1
	netdevIfindex     = 1
	netdevXDPFeatures = 3
	netdevTakesFrames = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT
)

// TakesXDP says whether a device takes frames that an XDP program redirects to it: a tap
// always does, a veth while its other end has NAPI, which generic receive offload brings.
// Who has that end can switch it off at any time; then such frames are lost.
func (l *Loader) TakesXDP(ifindex uint32) (takes bool, err error) {
	err = l.in(func() error {
		takes, err = takesXDP(ifindex)
		return err
	})
	return takes, err
}

func takesXDP(ifindex uint32) (bool, error) {
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if err != nil {
		return false, fmt.Errorf("ask the kernel for the XDP features of devices: %w", err)
	}
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	// Written out: nl.Genlmsg leaves in the two reserved bytes what lies behind it, and the kernel wants zeros.
	header := []byte{netdevGet, 1, 0, 0}
	request.AddRawData(append(header, nl.NewRtAttr(netdevIfindex, nl.Uint32Attr(ifindex)).Serialize()...))
	replies, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return false, fmt.Errorf("read the XDP features of device %d: %w", ifindex, err)
	}
	for _, reply := range replies {
		attributes, err := nl.ParseRouteAttr(reply[nl.SizeofGenlmsg:])
		if err != nil {
			return false, fmt.Errorf("read the XDP features of device %d: %w", ifindex, err)
		}
		for _, attribute := range attributes {
			if attribute.Attr.Type == netdevXDPFeatures && len(attribute.Value) == 8 {
				return binary.NativeEndian.Uint64(attribute.Value)&netdevTakesFrames != 0, nil
			}
		}
	}
	return false, fmt.Errorf("the kernel says nothing of the XDP features of device %d", ifindex)
}
