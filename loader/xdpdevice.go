package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// From linux/netdev.h.
const (
	netdevFamily      = "netdev"
	netdevGroup       = "mgmt"
	netdevGet         = 1
	netdevIfindex     = 1
	netdevXDPFeatures = 3
	netdevTakesFrames = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT
	netdevChanged     = 4      // NETDEV_CMD_DEV_CHANGE_NTF
)

// TakesXDP says whether a device takes frames that an XDP program redirects to it: a tap
// always does, a veth while its other end has NAPI, which generic receive offload brings.
// Who has that end can switch it off at any time, of which WatchXDP tells; then such frames
// are lost. While that end is down it can be switched off without a trace: the answer stays.
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

// WatchXDP calls changed with the ifindex of each device whose XDP features change, in this
// agent's namespace; and first with 0, once none will be missed. It returns nil when ctx
// ends, else why it hears no more.
func (l *Loader) WatchXDP(ctx context.Context, changed func(ifindex uint32)) error {
	var conn *genetlink.Conn
	if err := l.in(func() (err error) { conn, err = listenNetdev(); return err }); err != nil {
		return fmt.Errorf("listen for changes of XDP features: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	changed(0)
	for {
		messages, _, err := conn.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hear changes of XDP features: %w", err)
		}
		for _, m := range messages {
			if m.Header.Command != netdevChanged {
				continue
			}
			ifindex, _, err := deviceFeatures(m.Data)
			if err != nil {
				return fmt.Errorf("read a change of XDP features: %w", err)
			}
			changed(ifindex)
		}
	}
}

func listenNetdev() (*genetlink.Conn, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, err
	}
	family, err := conn.GetFamily(netdevFamily)
	if err == nil {
		at := slices.IndexFunc(family.Groups, func(g genetlink.MulticastGroup) bool { return g.Name == netdevGroup })
		if at < 0 {
			err = fmt.Errorf("the kernel's family %s has no group %s", netdevFamily, netdevGroup)
		} else {
			err = conn.JoinGroup(family.Groups[at].ID)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
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
		_, features, err := deviceFeatures(reply.Data)
		return features, err
	}
	return 0, errors.New("the kernel says nothing of them")
}

// deviceFeatures reads a message about a device.
func deviceFeatures(message []byte) (ifindex uint32, features uint64, err error) {
	answer, err := netlink.NewAttributeDecoder(message)
	if err != nil {
		return 0, 0, err
	}
	for answer.Next() {
		switch answer.Type() {
		case netdevIfindex:
			ifindex = answer.Uint32()
		case netdevXDPFeatures:
			features = answer.Uint64()
		}
	}
	return ifindex, features, answer.Err()
}
