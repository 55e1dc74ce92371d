package loader

import (
	"errors"
	"fmt"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
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
	features, err := xdpFeatures(ifindex)
	if err != nil {
		return false, fmt.Errorf("read the XDP features of device %d: %w", ifindex, err)
	}
	return features&netdevTakesFrames != 0, nil
}

// xdpFeatures asks the kernel for enum netdev_xdp_act of a device in the calling thread's
// namespace.
func xdpFeatures(ifindex uint32) (uint64, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	family, err := conn.GetFamily(netdevFamily)
	if err != nil {
		return 0, err
	}
	question := netlink.NewAttributeEncoder()
	question.Uint32(netdevIfindex, ifindex)
	data, err := question.Encode()
	if err != nil {
		return 0, err
	}
	replies, err := conn.Execute(genetlink.Message{Header: genetlink.Header{Command: netdevGet, Version: 1}, Data: data}, family.ID, netlink.Request)
	if err != nil {
		return 0, err
	}
	for _, reply := range replies {
		answer, err := netlink.NewAttributeDecoder(reply.Data)
		if err != nil {
			return 0, err
		}
		for answer.Next() {
			if answer.Type() == netdevXDPFeatures {
				features := answer.Uint64()
				return features, answer.Err()
			}
		}
		if err := answer.Err(); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("the kernel says nothing of them")
}
